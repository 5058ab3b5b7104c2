//! Dispatchers around others: every hook reaches the inner one.

use std::io::{self, Write};
use std::net::Shutdown;

use dispatch_loop::{Channel, ChannelMap, Dispatcher, LookupError, Reason, Wrapper};

use crate::support::every_hook::{self, Told};
use crate::support::logging::{capture_log, logged};
use crate::support::peers::{loopbacks, pair, read_all};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::turn_until;

/// Records its own two moments, in the log that the inner dispatcher writes as well.
struct Wrapped<D> {
    inner: D,
    log: Log,
}

impl<D: Dispatcher> Wrapper for Wrapped<D> {
    type Inner = D;

    fn inner(&self) -> &D {
        &self.inner
    }
    fn inner_mut(&mut self) -> &mut D {
        &mut self.inner
    }
    fn opened(&mut self, ch: &mut Channel<'_>) {
        assert!(ch.is_connected());
        self.log.add("opened");
    }
    fn closed(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        self.log.add(format!("closed: {reason}"));
    }
}

#[test]
fn every_hook_reaches_the_inner_dispatcher() {
    let told = Told::default();
    let inner = told.clone();
    every_hook::with_a_datagram(&mut ChannelMap::new().unwrap(), move |ch, datagram| {
        let dispatchers: [Box<dyn Dispatcher>; 4] = [
            Box::new(inner.clone()),
            Box::new(Box::new(inner.clone())),
            Box::new(Box::new(Box::new(inner.clone()) as Box<dyn Dispatcher>)),
            Box::new(Wrapped { inner: inner.clone(), log: Log::new() }),
        ];
        for mut dispatcher in dispatchers {
            inner.forget();
            every_hook::call(&mut *dispatcher, ch, datagram);
            assert_eq!(inner.hooks(), every_hook::hooks());
        }
    });
    assert_eq!(told.hooks(), every_hook::hooks());
}

#[test]
fn the_wrapper_opens_before_the_inner_dispatcher_and_closes_after_it() {
    for panics in [false, true] {
        capture_log();
        let log = Log::new();
        let (near, far) = pair(loopbacks()[0]);
        let mut map = ChannelMap::new().unwrap();
        let inner = Recorder::new("a", &log).on("close", move |_| match panics {
            true => panic!("at the end"),
            false => Ok(()),
        });
        let handle = map.add(near, Wrapped { inner, log: log.clone() }).unwrap();
        turn_until(&mut map, &log, |_| log.has("a open"));
        assert_eq!(map.get(handle).unwrap().inner().name, "a");
        drop(far);
        turn_until(&mut map, &log, |map| map.is_empty());
        let events: Vec<_> = log.events().into_iter().filter(|event| event != "a read").collect();
        assert_eq!(events, ["opened", "a open", "a eof", "a close: end of stream", "closed: end of stream"]);
        assert_eq!(logged("at the end").len(), usize::from(panics));
    }
}

/// Dispatchers of several kinds behind one type.
#[test]
fn a_box_of_any_dispatcher_is_a_dispatcher() {
    struct Other;
    impl Dispatcher for Other {
        fn writable(&self, _: &Channel<'_>) -> bool {
            true
        }
        fn handle_write(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            ch.push(b"other")?;
            ch.close();
            Ok(())
        }
    }
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let dispatchers: [Box<dyn Dispatcher>; 2] = [Box::new(Recorder::new("a", &log)), Box::new(Other)];
    let answers = dispatchers.map(|dispatcher| {
        let (near, mut far) = pair(loopbacks()[0]);
        let handle = map.add(near, dispatcher).unwrap();
        let unboxed = handle.token().typed::<Other>();
        assert!(map.get(handle).is_ok());
        assert!(matches!(map.get(unboxed), Err(LookupError::OtherType(_))));
        far.write_all(b"input").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        turn_until(&mut map, &log, |map| map.is_empty());
        read_all(&mut far).0
    });
    assert_eq!(answers, [&b""[..], b"other"]);
    assert_eq!(log.input("a"), b"input");
    assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
}
