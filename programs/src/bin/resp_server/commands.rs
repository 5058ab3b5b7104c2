//! What is answered to each command.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{Channel, Token};

use crate::store::{self, Store};

/// The limits of an answer, of a client's subscriptions, and of the name of a channel.
const ANSWER: usize = 8 * 1024 * 1024;
const SUBSCRIPTIONS: usize = 1024;
const NAME: usize = 1024;

const COMMANDS: &str = "ping echo get set del exists incr decr expire ttl mget mset publish subscribe unsubscribe \
    command info quit";

const SYNTAX: &str = "ERR syntax error";
const NO_INTEGER: &str = "ERR value is not an integer or out of range";

pub struct Client {
    store: Rc<RefCell<Store>>,
    subscriptions: HashSet<Vec<u8>>,
}

impl Client {
    pub fn new(store: Rc<RefCell<Store>>) -> Client {
        Client { store, subscriptions: HashSet::new() }
    }

    pub fn leave(&mut self, token: Token) {
        for name in std::mem::take(&mut self.subscriptions) {
            self.unsubscribe(token, &name);
        }
    }

    pub fn answer(&mut self, ch: &mut Channel<'_>, mut request: Vec<Vec<u8>>) -> io::Result<()> {
        let Some(name) = request.first_mut() else { return Ok(()) };
        name.make_ascii_lowercase();
        let request: Vec<&[u8]> = request.iter().map(|word| &word[..]).collect();
        let mut out = Vec::new();
        if let Err(error) = self.run(ch, &request, &mut out) {
            out = format!("-{error}\r\n").into_bytes();
        }
        ch.push_vec(out)?;
        if request == [b"quit"] {
            ch.close();
        }
        Ok(())
    }

    fn run(
        &mut self,
        ch: &mut Channel<'_>,
        request: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        let (token, map) = (ch.token(), ch.map_mut());
        if !self.subscriptions.is_empty()
            && !matches!(request[0], b"subscribe" | b"unsubscribe" | b"ping" | b"quit")
        {
            return Err("ERR a subscriber may only SUBSCRIBE, UNSUBSCRIBE, PING and QUIT");
        }
        let mut store = self.store.borrow_mut();
        match *request {
            [b"ping", ref text @ ..] if text.len() < 2 && !self.subscriptions.is_empty() => {
                head(out, '*', 2);
                bulk(out, Some(b"pong"));
                bulk(out, Some(text.first().unwrap_or(&&b""[..])));
            }
            [b"ping"] => out.extend_from_slice(b"+PONG\r\n"),
            [b"ping" | b"echo", text] => bulk(out, Some(text)),
            [b"get", key] => bulk(out, store.get(key)),
            [b"set", key, value, ref options @ ..] => {
                let (time, wanted) = set_options(options)?;
                if wanted.is_some_and(|wanted| wanted != store.keys.contains_key(key)) {
                    bulk(out, None);
                    return Ok(());
                }
                store.set(key, value)?;
                out.extend_from_slice(b"+OK\r\n");
                match time {
                    None => store.persist(map, key),
                    Some(time) => {
                        drop(store);
                        store::expire(&self.store, map, key, time);
                    }
                }
            }
            [b"del", ref keys @ ..] if !keys.is_empty() => {
                head(out, ':', keys.iter().filter(|key| store.remove(map, key)).count() as i64);
            }
            [b"exists", ref keys @ ..] if !keys.is_empty() => {
                head(out, ':', keys.iter().filter(|key| store.keys.contains_key(**key)).count() as i64);
            }
            [name @ (b"incr" | b"decr"), key] => {
                let before = store.get(key).map_or(Some(0), parse).ok_or(NO_INTEGER)?;
                let sum = before.checked_add(if name == b"incr" { 1 } else { -1 });
                let sum = sum.ok_or("ERR increment or decrement would overflow")?;
                store.set(key, sum.to_string().as_bytes())?;
                head(out, ':', sum);
            }
            [b"expire", key, seconds] => {
                let seconds = parse(seconds).ok_or(NO_INTEGER)?;
                head(out, ':', store.keys.contains_key(key).into());
                match u64::try_from(seconds) {
                    Err(_) | Ok(0) => drop(store.remove(map, key)),
                    Ok(seconds) => {
                        drop(store);
                        store::expire(&self.store, map, key, Duration::from_secs(seconds));
                    }
                }
            }
            [b"ttl", key] => match store.expires_in(map, key) {
                Some(left) => head(out, ':', left.as_secs_f64().round() as i64),
                None => head(out, ':', if store.keys.contains_key(key) { -1 } else { -2 }),
            },
            [b"mget", ref keys @ ..] if !keys.is_empty() => {
                if keys.iter().filter_map(|key| store.get(key)).map(<[u8]>::len).sum::<usize>() > ANSWER {
                    return Err("ERR the answer would be too large");
                }
                head(out, '*', keys.len() as i64);
                keys.iter().for_each(|key| bulk(out, store.get(key)));
            }
            [b"mset", ref pairs @ ..] if !pairs.is_empty() && pairs.len() % 2 == 0 => {
                for pair in pairs.chunks_exact(2) {
                    store.set(pair[0], pair[1])?;
                    store.persist(map, pair[0]);
                }
                out.extend_from_slice(b"+OK\r\n");
            }
            [b"publish", name, text] => {
                let Some(subscribers) = store.channels.get(name) else {
                    head(out, ':', 0);
                    return Ok(());
                };
                let mut message = b"*3\r\n".to_vec();
                [b"message", name, text].iter().for_each(|part| bulk(&mut message, Some(part)));
                map.broadcast(subscribers.iter().copied(), &message);
                head(out, ':', subscribers.len() as i64);
            }
            [b"subscribe", ref names @ ..] if !names.is_empty() => {
                for name in names {
                    if name.len() > NAME || self.subscriptions.len() >= SUBSCRIPTIONS {
                        return Err("ERR too many channels, or too long a name");
                    }
                    self.subscriptions.insert(name.to_vec());
                    store.channels.entry(name.to_vec()).or_default().insert(token);
                    confirm(out, request[0], Some(name), self.subscriptions.len());
                }
            }
            [b"unsubscribe", ref names @ ..] => {
                drop(store);
                let mut names: Vec<Vec<u8>> = names.iter().map(|name| name.to_vec()).collect();
                if names.is_empty() {
                    names = self.subscriptions.iter().cloned().collect();
                }
                for name in &names {
                    self.subscriptions.remove(name);
                    self.unsubscribe(token, name);
                    confirm(out, request[0], Some(name), self.subscriptions.len());
                }
                if names.is_empty() {
                    confirm(out, request[0], None, 0);
                }
            }
            [b"command", what] if what.eq_ignore_ascii_case(b"count") => {
                head(out, ':', COMMANDS.split(' ').count() as i64)
            }
            [b"command", ..] => head(out, '*', 0), // nobody needs to know them
            [b"info", ..] => {
                let (channels, memory, keys) = (map.len(), store.bytes, store.keys.len());
                let text = format!("# Clients\r\nconnected_clients:{}\r\n", channels.saturating_sub(1));
                let text = format!("{text}\r\n# Memory\r\nused_memory:{memory}\r\n");
                bulk(out, Some(format!("{text}\r\n# Keyspace\r\ndb0:keys={keys}\r\n").as_bytes()));
            }
            [b"quit"] => out.extend_from_slice(b"+OK\r\n"),
            [name, ..] if COMMANDS.split(' ').any(|known| known.as_bytes() == name) => {
                return Err("ERR wrong number of arguments");
            }
            _ => return Err("ERR unknown command"),
        }
        Ok(())
    }

    fn unsubscribe(&self, token: Token, name: &[u8]) {
        let channels = &mut self.store.borrow_mut().channels;
        let Some(subscribers) = channels.get_mut(name) else { return };
        subscribers.remove(&token);
        if subscribers.is_empty() {
            channels.remove(name);
        }
    }
}

/// When the key expires, and whether it must be there, or must not.
fn set_options(options: &[&[u8]]) -> Result<(Option<Duration>, Option<bool>), &'static str> {
    let (mut time, mut wanted) = (None, None);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match &option.to_ascii_lowercase()[..] {
            b"nx" if wanted.is_none() => wanted = Some(false),
            b"xx" if wanted.is_none() => wanted = Some(true),
            unit @ (b"ex" | b"px") if time.is_none() => {
                let number = parse(options.next().ok_or(SYNTAX)?).ok_or(NO_INTEGER)?;
                let number = u64::try_from(number).ok().filter(|number| *number > 0);
                let number = number.ok_or("ERR invalid expire time in 'set' command")?;
                time = Some(if unit == b"ex" {
                    Duration::from_secs(number)
                } else {
                    Duration::from_millis(number)
                });
            }
            _ => return Err(SYNTAX),
        }
    }
    Ok((time, wanted))
}

fn parse(number: &[u8]) -> Option<i64> {
    std::str::from_utf8(number).ok()?.parse().ok()
}

fn confirm(out: &mut Vec<u8>, what: &[u8], name: Option<&[u8]>, subscriptions: usize) {
    head(out, '*', 3);
    bulk(out, Some(what));
    bulk(out, name);
    head(out, ':', subscriptions as i64);
}

fn bulk(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    head(out, '$', bytes.map_or(-1, |bytes| bytes.len() as i64));
    if let Some(bytes) = bytes {
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}

fn head(out: &mut Vec<u8>, sign: char, number: i64) {
    let _ = write!(out, "{sign}{number}\r\n"); // a vector takes everything
}
