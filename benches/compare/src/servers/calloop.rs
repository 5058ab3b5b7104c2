//! With calloop: each connection is an event source, level-triggered, and all share one read buffer.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;

use ::calloop::generic::Generic;
use ::calloop::{
    EventLoop, EventSource, Interest, LoopHandle, Mode, Poll, PostAction, Readiness, Token, TokenFactory,
};

use super::BUFFER;
use super::echo::{self, Next};

type Buffer = Rc<RefCell<Vec<u8>>>;

/// Wraps `Generic`, whose callback cannot change what it waits for.
struct Connection {
    io: Generic<TcpStream>,
    unsent: Vec<u8>,
    buffer: Buffer,
}

pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let mut event_loop: EventLoop<()> = EventLoop::try_new()?;
    let handle = event_loop.handle();
    let buffer = Rc::new(RefCell::new(vec![0; BUFFER]));
    let accepting = Generic::new(listener, Interest::READ, Mode::Level);
    let connections = handle.clone();
    handle
        .insert_source(accepting, move |_, listener, ()| accept(listener, &connections, &buffer))
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(event_loop.run(None, &mut (), |()| {})?)
}

fn accept(listener: &TcpListener, handle: &LoopHandle<'_, ()>, buffer: &Buffer) -> io::Result<PostAction> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                let io = Generic::new(stream, Interest::READ, Mode::Level);
                let connection = Connection { io, unsent: Vec::new(), buffer: buffer.clone() };
                handle
                    .insert_source(connection, |(), (), ()| ())
                    .map_err(|error| io::Error::other(error.to_string()))?;
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return Ok(PostAction::Continue),
                ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                _ => return Err(error),
            },
        }
    }
}

impl EventSource for Connection {
    // It serves itself and produces no events.
    type Event = ();
    type Metadata = ();
    type Ret = ();
    type Error = io::Error;

    fn process_events<F>(&mut self, readiness: Readiness, token: Token, _: F) -> io::Result<PostAction>
    where
        F: FnMut((), &mut ()),
    {
        let Connection { io, unsent, buffer } = self;
        let mut next = Next::Same;
        io.process_events(readiness, token, |_, stream| {
            let stream: &TcpStream = stream;
            next = echo::serve(stream, unsent, &mut buffer.borrow_mut());
            Ok(PostAction::Continue)
        })?;
        match next {
            Next::Same => return Ok(PostAction::Continue),
            Next::Input => io.interest = Interest::READ,
            Next::Room => io.interest = Interest::WRITE,
            Next::End => return Ok(PostAction::Remove),
        }
        Ok(PostAction::Reregister)
    }

    fn register(&mut self, poll: &mut Poll, tokens: &mut TokenFactory) -> ::calloop::Result<()> {
        self.io.register(poll, tokens)
    }

    fn reregister(&mut self, poll: &mut Poll, tokens: &mut TokenFactory) -> ::calloop::Result<()> {
        self.io.reregister(poll, tokens)
    }

    fn unregister(&mut self, poll: &mut Poll) -> ::calloop::Result<()> {
        self.io.unregister(poll)
    }
}
