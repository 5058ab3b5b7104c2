#![no_main]

//! The messages of `app_server` and `app_client`.

#[allow(dead_code)]
#[path = "../../examples/common/app.rs"]
mod app;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use app::{Receiver, message};
use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
use dispatch_loop::{Eof, OnError};
use dispatch_loop_fuzz::{pieces, wire};
use libfuzzer_sys::fuzz_target;

/// Contents with their JSON or why there is none, and errors.
type Log = Rc<RefCell<Vec<String>>>;

// A byte says how the rest is cut; that is a stream of bytes, and at the same time a content.
fuzz_target!(|input: &[u8]| {
    let [size, bytes @ ..] = input else { return };
    let (sizes, kind) = (&[*size, size / 2, size / 3, 1], *size);
    assert_eq!(
        receive(&[bytes], sizes),
        receive(&pieces(bytes, sizes), sizes),
        "the pieces make a difference"
    );

    // What is sent is received, whatever it contains.
    let (name, encoding) =
        [("text/json", "utf-8"), ("text/json", "latin-1"), ("binary/x", "binary")][usize::from(kind % 3)];
    let sent = message(name, encoding, bytes);
    let received = receive(&pieces(&sent, sizes), sizes);
    assert!(received[0].starts_with(&format!("{bytes:?}")), "{received:?}");
});

fn receive(sent: &[&[u8]], sizes: &[u8; 4]) -> Vec<String> {
    let log = Log::default();
    let sent: Vec<&[u8]> = sent.iter().copied().filter(|piece| !piece.is_empty()).collect();
    let request = Request { receiver: Receiver::default(), log: log.clone() };
    wire::serve(&sent, usize::from(sizes[0]).max(1), ChatDispatcher::new(app::LENGTH, request).unwrap());
    log.take()
}

struct Request {
    receiver: Receiver,
    log: Log,
}

impl Chat for Request {
    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()> {
        if let Some(message) = self.receiver.take(ch, data)? {
            assert!(message.content.len() <= app::LIMIT);
            let json = message.json().map(|json| json.is_some()).map_err(|error| error.to_string());
            self.log.borrow_mut().push(format!("{:?} {json:?}", message.content));
            ch.close();
        }
        Ok(())
    }

    fn handle_eof(&mut self, _: &mut ChatChannel<'_>, rest: &[u8]) -> io::Result<Eof> {
        Err(self.receiver.cut_short(rest))
    }

    fn handle_error(&mut self, _: &mut ChatChannel<'_>, error: &io::Error) -> OnError {
        self.log.borrow_mut().push(error.to_string());
        OnError::End
    }
}
