//! Every hook of `Dispatcher`, called one by one: for what wraps a dispatcher and is to pass on all of
//! them, also those that do not exist yet.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use dispatch_loop::{
    Address, Channel, ChannelMap, Datagram, Deadline, Dispatcher, Eof, OnError, Reason, Socket, ToAddress,
};

use super::opened::address_of;
use super::peers::loopbacks;
use super::recorder::Log;
use super::turning::turn_until;

/// The names of the hooks that the trait has, read from where it is defined.
pub fn hooks() -> BTreeSet<String> {
    let source = include_str!("../../src/core/dispatcher.rs");
    let (_, of_the_trait) = source.split_once("\npub trait Dispatcher").unwrap();
    let (of_the_trait, _) = of_the_trait.split_once("\n}\n").unwrap();
    let names = of_the_trait.lines().filter_map(|line| line.strip_prefix("    fn ")?.split_once('('));
    let names: BTreeSet<String> = names.map(|(name, _)| name.to_owned()).collect();
    assert!(names.contains("readable") && names.contains("handle_close"), "{names:?}");
    names
}

/// Records the name of each hook that it is given.
#[derive(Clone, Default)]
pub struct Told(Rc<RefCell<BTreeSet<String>>>);

impl Told {
    fn of(&self, hook: &str) -> io::Result<()> {
        self.0.borrow_mut().insert(hook.to_owned());
        Ok(())
    }

    pub fn forget(&self) {
        self.0.borrow_mut().clear();
    }

    pub fn hooks(&self) -> BTreeSet<String> {
        self.0.borrow().clone()
    }
}

impl Dispatcher for Told {
    fn readable(&self, _: &Channel<'_>) -> bool {
        self.of("readable").is_ok()
    }
    fn writable(&self, _: &Channel<'_>) -> bool {
        self.of("writable").is_err()
    }
    fn handle_open(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.of("handle_open")
    }
    fn handle_connect(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.of("handle_connect")
    }
    fn handle_accept(&mut self, _: &mut Channel<'_>, _: Socket, _: Address) -> io::Result<()> {
        self.of("handle_accept")
    }
    fn handle_accept_error(&mut self, _: &mut Channel<'_>, _: &io::Error) {
        let _ = self.of("handle_accept_error");
    }
    fn handle_read(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.of("handle_read")
    }
    fn handle_datagram(&mut self, _: &mut Channel<'_>, _: &Datagram<'_>) -> io::Result<()> {
        self.of("handle_datagram")
    }
    fn handle_network_error(&mut self, _: &mut Channel<'_>, _: &io::Error) -> io::Result<()> {
        self.of("handle_network_error")
    }
    fn handle_write(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.of("handle_write")
    }
    fn handle_expt(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.of("handle_expt")
    }
    fn handle_eof(&mut self, _: &mut Channel<'_>) -> io::Result<Eof> {
        self.of("handle_eof").map(|()| Eof::KeepWriting)
    }
    fn handle_high(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.of("handle_high")
    }
    fn handle_low(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.of("handle_low")
    }
    fn handle_wrapped(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.of("handle_wrapped")
    }
    fn handle_drained(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.of("handle_drained")
    }
    fn handle_drain(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.of("handle_drain")
    }
    fn handle_timeout(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.of("handle_timeout")
    }
    fn handle_deadline(&mut self, _: &mut Channel<'_>, _: Deadline) -> io::Result<()> {
        self.of("handle_deadline")
    }
    fn handle_error(&mut self, _: &mut Channel<'_>, _: &io::Error) -> OnError {
        let _ = self.of("handle_error");
        OnError::Keep
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, _: &Reason) {
        let _ = self.of("handle_close");
    }
}

/// Call every hook of `dispatcher`, and look that its answers are those of a `Told`.
pub fn call(dispatcher: &mut dyn Dispatcher, ch: &mut Channel<'_>, datagram: &Datagram<'_>) {
    let error = io::Error::other("as it must be");
    let socket = Socket::from(UnixStream::pair().unwrap().0);
    let peer = "127.0.0.1:1".to_address().unwrap();
    assert!(dispatcher.readable(ch) && !dispatcher.writable(ch));
    dispatcher.handle_connect(ch).unwrap();
    dispatcher.handle_open(ch).unwrap();
    dispatcher.handle_accept(ch, socket, peer).unwrap();
    dispatcher.handle_accept_error(ch, &error);
    dispatcher.handle_read(ch).unwrap();
    dispatcher.handle_datagram(ch, datagram).unwrap();
    dispatcher.handle_network_error(ch, &error).unwrap();
    dispatcher.handle_write(ch).unwrap();
    dispatcher.handle_expt(ch).unwrap();
    dispatcher.handle_high(ch).unwrap();
    dispatcher.handle_low(ch).unwrap();
    dispatcher.handle_drained(ch).unwrap();
    dispatcher.handle_wrapped(ch).unwrap();
    dispatcher.handle_drain(ch).unwrap();
    dispatcher.handle_timeout(ch).unwrap();
    dispatcher.handle_deadline(ch, Deadline::Read).unwrap();
    assert_eq!(dispatcher.handle_eof(ch).unwrap(), Eof::KeepWriting);
    assert_eq!(dispatcher.handle_error(ch, &error), OnError::Keep);
    dispatcher.handle_close(ch, &Reason::Closed);
}

type WithDatagram = Box<dyn FnOnce(&mut Channel<'_>, &Datagram<'_>)>;

/// Call `f` with a view and a datagram, which only a loop can make. A panic of it is the test's.
pub fn with_a_datagram(map: &mut ChannelMap, f: impl FnOnce(&mut Channel<'_>, &Datagram<'_>) + 'static) {
    struct Once(Option<WithDatagram>, Rc<RefCell<Option<std::thread::Result<()>>>>);
    impl Dispatcher for Once {
        fn handle_datagram(&mut self, ch: &mut Channel<'_>, datagram: &Datagram<'_>) -> io::Result<()> {
            let f = self.0.take().expect("one datagram was sent");
            *self.1.borrow_mut() = Some(catch_unwind(AssertUnwindSafe(|| f(ch, datagram))));
            Ok(())
        }
    }
    let on = loopbacks()[0];
    let ran = Rc::default();
    let channel = map.bind(on, Once(Some(Box::new(f)), Rc::clone(&ran))).unwrap();
    UdpSocket::bind(on).unwrap().send_to(b"datagram", address_of(map, channel)).unwrap();
    turn_until(map, &Log::new(), |_| ran.borrow().is_some());
    if let Some(Err(payload)) = ran.take() {
        resume_unwind(payload);
    }
}
