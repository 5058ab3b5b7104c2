#![no_main]

//! Messages of a chat whose terminators change, beside a model that has all the bytes at once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use dispatch_loop::Eof;
use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher, Terminator};
use dispatch_loop_fuzz::{pieces, wire};
use libfuzzer_sys::fuzz_target;

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Message(Vec<u8>),
    Overlong,
    End(Vec<u8>),
}

/// What is done after a message.
#[derive(Clone)]
struct Step {
    next: Terminator,
    /// So many of its last bytes are put back.
    unread: usize,
    pauses: bool,
    replaces: bool,
}

fuzz_target!(|input: (u8, &[u8], Vec<(u8, u8, &[u8])>, &[u8])| {
    let (limit, sizes, steps, bytes) = input;
    // Few different bytes, so that parts of terminators are common.
    let narrow =
        |bytes: &[u8]| -> Vec<u8> { bytes.iter().map(|byte| b"ab\r\n"[usize::from(byte & 3)]).collect() };
    let step = |(flags, number, bytes): &(u8, u8, &[u8])| {
        let next = match flags & 3 {
            0 => Terminator::Count(usize::from(*number).max(1)),
            1 if flags & 0xf0 == 0 => Terminator::None,
            _ if bytes.is_empty() => Terminator::from("\r\n"),
            _ => Terminator::from(narrow(bytes)),
        };
        Step {
            next,
            unread: if flags & 4 == 0 { 0 } else { usize::from(number >> 4) },
            pauses: flags & 8 != 0,
            replaces: flags & 16 != 0,
        }
    };
    let steps: VecDeque<Step> = steps.iter().take(64).map(step).collect();
    let (limit, bytes) = (usize::from(limit), narrow(bytes));

    let log = Rc::new(RefCell::new(Vec::new()));
    let talker = Talker { steps: steps.clone(), limit, log: log.clone() };
    wire::serve(&pieces(&bytes, sizes), 100, ChatDispatcher::new("\n", talker).unwrap());
    assert_eq!(log.take(), model(steps, limit, &bytes));
});

struct Talker {
    steps: VecDeque<Step>,
    limit: usize,
    log: Rc<RefCell<Vec<Event>>>,
}

impl Chat for Talker {
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        ch.set_input_limit(self.limit);
        Ok(())
    }

    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()> {
        self.log.borrow_mut().push(Event::Message(data.to_vec()));
        let Some(step) = self.steps.pop_front() else { return Ok(()) };
        if step.pauses {
            ch.pause_reading();
        }
        let back = &data[data.len() - step.unread.min(data.len())..];
        if step.replaces {
            let steps = std::mem::take(&mut self.steps);
            let next = Talker { steps, limit: self.limit, log: self.log.clone() };
            ch.unread(back);
            let mut next = ChatDispatcher::new(step.next, next)?;
            let limit = self.limit;
            next.with(ch.channel_mut(), |_, ch| ch.set_input_limit(limit));
            ch.replace_dispatcher(next)?;
            return Ok(());
        }
        ch.set_terminator(step.next)?;
        ch.unread(back);
        Ok(())
    }

    fn handle_overlong(&mut self, _: &mut ChatChannel<'_>) -> io::Result<()> {
        self.log.borrow_mut().push(Event::Overlong);
        Ok(())
    }

    fn handle_eof(&mut self, _: &mut ChatChannel<'_>, rest: &[u8]) -> io::Result<Eof> {
        self.log.borrow_mut().push(Event::End(rest.to_vec()));
        Ok(Eof::Close)
    }
}

fn model(mut steps: VecDeque<Step>, limit: usize, bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut rest = bytes.to_vec();
    let mut terminator = Terminator::from("\n");
    loop {
        let found = match &terminator {
            Terminator::Bytes(end) => {
                let at = rest.windows(end.len()).position(|window| *window == **end);
                at.map(|at| (at, at + end.len()))
            }
            Terminator::Count(count) => (*count <= rest.len()).then_some((*count, *count)),
            _ => None,
        };
        let length = found.map_or(rest.len(), |(length, _)| length);
        let is_overlong = length > limit;
        if is_overlong {
            events.push(Event::Overlong);
        }
        let Some((length, used)) = found else {
            events.push(Event::End(if is_overlong { Vec::new() } else { rest }));
            return events;
        };
        let message = rest[..length].to_vec();
        rest.drain(..used);
        if is_overlong {
            continue;
        }
        events.push(Event::Message(message.clone()));
        let Some(step) = steps.pop_front() else { continue };
        terminator = step.next;
        let back = &message[message.len() - step.unread.min(message.len())..];
        rest.splice(..0, back.iter().copied());
    }
}
