//! A broker of MQTT 3.1.1: what is published on a topic goes to all that have subscribed to it.
//!
//! It shows `Messages` on a binary protocol (`packet.rs`); `Deadlines`, which are a client's keep-alive; `broadcast`;
//! and sessions that outlive their connections, within limits (`broker.rs`). QoS 2 is not offered.
//!
//! ```sh
//! cargo run --release -p programs --bin mqtt_broker
//! ```
//!
//! The other side is `mosquitto_sub -t '#' -v`, and `mosquitto_pub -t a/topic -m text`.

mod broker;
#[path = "../../../../examples/common/mod.rs"]
mod common;
mod packet;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::{Exit, Server, ServerOptions};
use dispatch_loop::framing::Messages;
use dispatch_loop::{Address, Channel, Deadlines, Dispatcher, MinRate, OnLimit, Reason, Socket};
use lexopt::prelude::*;

use crate::broker::Broker;
use crate::packet::{Connect, Message, Packet, Packets, invalid};

const HELP: &str = "\
usage: mqtt_broker [OPTION...] [ADDR]

Passes on what clients of MQTT 3.1.1 publish, with QoS 0 and 1, until Ctrl-C.

  ADDR               HOST:PORT, [IPV6]:PORT or unix:PATH (127.0.0.1:1883); port 0 asks for
                     a free one

A packet may have 1 MiB. For a session, 4,000 messages or 8 MiB wait to be acknowledged, also while it is not connected;
what comes then is dropped. A client that leaves more than 16 MiB unread is cut off.";

/// How long a packet may take to come, and the first one to begin.
const PACKET: Duration = Duration::from_secs(60);
const FIRST: Duration = Duration::from_secs(10);
/// How fast a client must take what it is sent, in bytes a second.
const RATE: MinRate = MinRate::new(100);
/// How many bytes may wait for a client.
const MOST_UNREAD: usize = 16 * 1024 * 1024;

fn main() -> ExitCode {
    common::server(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let (mut options, mut address) = (ServerOptions::default(), None);
    while let Some(arg) = args.next()? {
        match arg {
            Value(text) if address.is_none() => address = Some(common::address(text)?),
            other => options.take(other.unexpected(), &mut args)?,
        }
    }
    let mut server = Server::single(options)?;
    let options = server.options();
    let new = move || Listener { broker: BROKER.with(Rc::clone), options: options.clone() };
    server.listen(address.as_slice(), "127.0.0.1:1883", new)?;
    server.run() // until a signal
}

thread_local! {
    /// What all connections share.
    static BROKER: Rc<RefCell<Broker>> = Rc::default();
}

#[derive(Clone)]
struct Listener {
    broker: Rc<RefCell<Broker>>,
    options: Arc<ServerOptions>,
}

impl Dispatcher for Listener {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let connection =
            Connection { packets: Messages::new(Packets), broker: self.broker.clone(), id: None, will: None };
        let connection = self.options.add(ch.map_mut(), socket, connection)?;
        self.options.set_on(&mut ch.map_mut().channel(connection)?);
        Ok(())
    }
}

struct Connection {
    packets: Messages<Packets>,
    broker: Rc<RefCell<Broker>>,
    /// Who it is, once it has said so.
    id: Option<Rc<str>>,
    /// What is published if it ends without a farewell.
    will: Option<Message>,
}

/// What counts beside the time in which something must come.
fn deadlines() -> Deadlines {
    Deadlines::default().with_message(PACKET).with_write_rate(RATE)
}

impl Dispatcher for Connection {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_auto_pause(true);
        ch.set_limit(MOST_UNREAD, OnLimit::End);
        ch.set_deadlines(&deadlines().with_read(FIRST));
        Ok(())
    }

    /// An error is what the client has done wrong: it is logged, and ends the connection.
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, mut input| {
            while let Some(packet) = self.packets.next(&mut input)? {
                ch.end_message();
                self.take(ch, packet)?;
                if ch.is_paused() || ch.is_closing() {
                    ch.unread(input); // for when the answers are taken
                    break;
                }
            }
            ch.set_busy(self.packets.has_begun());
            if self.packets.has_begun() {
                ch.begin_message();
            }
            Ok(())
        })
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        common::disconnected(ch, reason);
        let (token, mut broker) = (ch.token(), self.broker.borrow_mut());
        if let Some(id) = &self.id {
            broker.leave(id, token);
        }
        if let Some(will) = self.will.take().filter(|_| !ch.map().is_draining()) {
            broker.publish(ch.map_mut(), will);
        }
    }
}

impl Connection {
    fn take(&mut self, ch: &mut Channel<'_>, packet: Packet) -> io::Result<()> {
        let Some(id) = self.id.clone() else {
            return match packet {
                Packet::Connect(connect) => self.connect(ch, connect),
                _ => Err(invalid("the first packet is not CONNECT")),
            };
        };
        let mut broker = self.broker.borrow_mut();
        match packet {
            Packet::Connect(_) => return Err(invalid("a second CONNECT")),
            Packet::Publish(message, acknowledge) => {
                broker.publish(ch.map_mut(), message);
                if let Some(number) = acknowledge {
                    ch.push(&packet::acknowledgement(packet::PUBACK, number, &[]))?;
                }
            }
            Packet::Puback(number) => broker.acknowledged(&id, number),
            Packet::Subscribe(number, filters) => {
                let granted: Vec<u8> =
                    filters.iter().map(|(filter, qos)| broker.subscribe(&id, filter, *qos)).collect();
                ch.push(&packet::acknowledgement(packet::SUBACK, number, &granted))?;
                let granted = filters.iter().map(|(filter, _)| filter).zip(granted);
                // What is subscribed to twice is sent once.
                for (filter, qos) in granted.filter(|(_, qos)| *qos < 2).collect::<HashMap<_, _>>() {
                    broker.send_retained(ch.map_mut(), &id, filter, qos);
                }
            }
            Packet::Unsubscribe(number, filters) => {
                filters.iter().for_each(|filter| broker.unsubscribe(&id, filter));
                ch.push(&packet::acknowledgement(packet::UNSUBACK, number, &[]))?;
            }
            Packet::Ping => ch.push(&[packet::PINGRESP, 0])?,
            Packet::Disconnect => {
                self.will = None;
                ch.close();
            }
        }
        Ok(())
    }

    fn connect(&mut self, ch: &mut Channel<'_>, connect: Connect) -> io::Result<()> {
        let mut broker = self.broker.borrow_mut();
        let refused = match () {
            () if !connect.is_known_version => Some(1),
            () if connect.id.len() > 256 || (connect.id.is_empty() && !connect.is_clean) => Some(2),
            () if !broker.has_room_for(&connect) => Some(3),
            () => None,
        };
        if let Some(code) = refused {
            log::info!("channel {}: CONNECT is refused with code {code}", ch.token());
            ch.push(&[packet::CONNACK, 2, 0, code])?;
            ch.close();
            return Ok(());
        }
        let allowed =
            (connect.keep_alive > 0).then(|| Duration::from_secs(connect.keep_alive.into()) * 3 / 2);
        ch.set_deadlines(&deadlines().with_read(allowed));
        self.will = connect.will;
        // A client without a name has one that no client can give itself.
        let id = if connect.id.is_empty() { format!("\0{}", ch.token()) } else { connect.id };
        self.id = Some(broker.enter(ch, id.into(), connect.is_clean)?);
        Ok(())
    }
}
