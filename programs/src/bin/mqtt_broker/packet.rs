//! The packets of MQTT 3.1.1, out of bytes and into them. No socket is in here.

use std::io;

use dispatch_loop::framing::{Decode, Decoded};

pub const CONNACK: u8 = 0x20;
pub const PUBACK: u8 = 0x40;
pub const SUBACK: u8 = 0x90;
pub const UNSUBACK: u8 = 0xb0;
pub const PINGRESP: u8 = 0xd0;

/// The most subscriptions in a packet, and of a session.
pub const FILTERS: usize = 1024;

pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
}

pub struct Connect {
    pub is_known_version: bool,
    pub id: String,
    pub is_clean: bool,
    pub keep_alive: u16,
    pub will: Option<Message>,
}

/// What a client may send.
pub enum Packet {
    Connect(Connect),
    /// With the number by which it is to be acknowledged, for QoS 1.
    Publish(Message, Option<u16>),
    Puback(u16),
    Subscribe(u16, Vec<(String, u8)>),
    Unsubscribe(u16, Vec<String>),
    Ping,
    Disconnect,
}

pub struct Packets;

impl Decode for Packets {
    type Message = Packet;

    /// A kind, with flags; a length of up to four times seven bits; the rest.
    fn decode(&mut self, input: &[u8]) -> io::Result<Decoded<Packet>> {
        let mut length = 0;
        for at in 0..4 {
            let Some(byte) = input.get(1 + at) else { return Ok(Decoded::MORE) };
            length |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                let used = 2 + at + length;
                let Some(body) = input.get(2 + at..used) else {
                    return Ok(Decoded::Incomplete { at_least: used });
                };
                let mut body = Body(body);
                let message = packet(input[0] >> 4, input[0] & 0x0f, &mut body)?;
                return match body.0 {
                    [] => Ok(Decoded::Message { message, used }),
                    _ => Err(invalid("a packet is longer than what is in it")),
                };
            }
        }
        Err(invalid("a length of more than four bytes"))
    }
}

fn packet(kind: u8, flags: u8, body: &mut Body<'_>) -> io::Result<Packet> {
    match (kind, flags) {
        (1, 0) => connect(body).map(Packet::Connect),
        (3, _) => {
            let (qos, retain) = (flags >> 1 & 3, flags & 1 == 1);
            let topic = body.text()?;
            if qos > 1 || (qos == 0 && flags & 8 != 0) {
                return Err(invalid("QoS 2 is not offered, 3 does not exist, and 0 is never sent again"));
            }
            if !is_topic(&topic) {
                return Err(invalid("a topic that is empty or has a wildcard"));
            }
            let number = if qos == 1 { Some(body.number()?) } else { None };
            let payload = std::mem::take(&mut body.0).to_vec();
            Ok(Packet::Publish(Message { topic, payload, qos, retain }, number))
        }
        (4, 0) => body.number().map(Packet::Puback),
        (8, 2) => {
            let (number, mut filters) = (body.number()?, Vec::new());
            while !body.0.is_empty() || filters.is_empty() {
                let (filter, qos) = (body.filter()?, body.byte()?);
                if qos > 2 || filters.len() >= FILTERS {
                    return Err(invalid(format!("a QoS over 2, or more than {FILTERS} filters")));
                }
                filters.push((filter, qos));
            }
            Ok(Packet::Subscribe(number, filters))
        }
        (10, 2) => {
            let (number, mut filters) = (body.number()?, Vec::new());
            while !body.0.is_empty() || filters.is_empty() {
                filters.push(body.filter()?);
            }
            Ok(Packet::Unsubscribe(number, filters))
        }
        (12, 0) => Ok(Packet::Ping),
        (14, 0) => Ok(Packet::Disconnect),
        _ => Err(invalid(format!("a packet of kind {kind} with flags {flags:#x}"))),
    }
}

fn connect(body: &mut Body<'_>) -> io::Result<Connect> {
    let (name, version) = (body.bytes()?, body.byte()?);
    if !matches!((name, version), (b"MQTT", 4)) {
        // What follows may be anything.
        body.0 = &[];
        let id = String::new();
        return Ok(Connect { is_known_version: false, id, is_clean: true, keep_alive: 0, will: None });
    }
    let (flags, keep_alive, id) = (body.byte()?, body.u16()?, body.text()?);
    let (has_will, qos) = (flags & 4 != 0, flags >> 3 & 3);
    if flags & 1 != 0 || qos > 2 || (!has_will && flags & 0x38 != 0) || flags & 0xc0 == 0x40 {
        return Err(invalid("flags of CONNECT that contradict each other"));
    }
    let mut will = None;
    if has_will {
        let (topic, payload) = (body.text()?, body.bytes()?.to_vec());
        if !is_topic(&topic) {
            return Err(invalid("the topic of a will is empty or has a wildcard"));
        }
        will = Some(Message { topic, payload, qos: qos.min(1), retain: flags & 0x20 != 0 });
    }
    if flags & 0x80 != 0 {
        body.text()?; // everybody may come in
    }
    if flags & 0x40 != 0 {
        body.bytes()?;
    }
    Ok(Connect { is_known_version: true, id, is_clean: flags & 2 != 0, keep_alive, will })
}

/// What is left of a packet.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) =
            self.0.split_at_checked(length).ok_or_else(|| invalid("a packet is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> io::Result<u16> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// By which a packet is acknowledged.
    fn number(&mut self) -> io::Result<u16> {
        Some(self.u16()?).filter(|number| *number > 0).ok_or_else(|| invalid("a packet with the number 0"))
    }

    fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    fn text(&mut self) -> io::Result<String> {
        let text = std::str::from_utf8(self.bytes()?).ok().filter(|text| !text.contains('\0'));
        text.map(str::to_owned).ok_or_else(|| invalid("a text that is not UTF-8, or with a NUL"))
    }

    fn filter(&mut self) -> io::Result<String> {
        let filter = self.text()?;
        let mut levels = filter.split('/').rev();
        let last_is_good = levels.next().is_some_and(|last| last == "#" || !last.contains('#'));
        let is_good = last_is_good
            && !filter.is_empty()
            && levels.all(|level| !level.contains('#'))
            && filter.split('/').all(|level| level == "+" || level == "#" || !level.contains(['+', '#']));
        if is_good { Ok(filter) } else { Err(invalid("a filter with a wildcard where there can be none")) }
    }
}

fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['+', '#'])
}

/// A message on its way to a client; with a number it is to be acknowledged.
pub fn publish(message: &Message, number: Option<u16>, is_retained: bool, is_repeated: bool) -> Vec<u8> {
    let qos = u8::from(number.is_some());
    let head = 0x30 | u8::from(is_repeated) << 3 | qos << 1 | u8::from(is_retained);
    let mut left = 2 + message.topic.len() + 2 * usize::from(qos) + message.payload.len();
    let mut packet = vec![head];
    while left > 0x7f {
        packet.push(0x80 | (left & 0x7f) as u8);
        left >>= 7;
    }
    packet.push(left as u8);
    packet.extend_from_slice(&(message.topic.len() as u16).to_be_bytes());
    packet.extend_from_slice(message.topic.as_bytes());
    packet.extend(number.into_iter().flat_map(u16::to_be_bytes));
    packet.extend_from_slice(&message.payload);
    packet
}

pub fn acknowledgement(kind: u8, number: u16, codes: &[u8]) -> Vec<u8> {
    let mut left = 2 + codes.len();
    let mut packet = vec![kind];
    while left > 0x7f {
        packet.push(0x80 | (left & 0x7f) as u8);
        left >>= 7;
    }
    packet.push(left as u8);
    packet.extend_from_slice(&number.to_be_bytes());
    packet.extend_from_slice(codes);
    packet
}

pub fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}
