//! Bytes in and out of one channel: `recv`, `send`, `push`, `flush`, each within its budget of the
//! turn. They change what is known of the channel and call no hook; the settle draws the
//! conclusions.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use crate::error::clone_error;
use crate::link::outbox::{Flushed, OnLimit, gathered};
use crate::link::producer::Producer;
use crate::link::source::Source;
use crate::link::{Phase, State};
use crate::reason::Reason;
use crate::sys;

/// What is pushed.
pub(crate) enum Output<'a> {
    Bytes(&'a [u8]),
    Slices(&'a [IoSlice<'a>]),
    Vec(Vec<u8>),
    Shared(Arc<[u8]>),
    /// For several channels; those that cannot take it at once share one copy, made when needed.
    Broadcast(&'a [u8], &'a mut Option<Arc<[u8]>>),
}

/// Below this a copy for each is cheaper than a share.
const SHARE: usize = 512;

impl Output<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Output::Bytes(bytes) | Output::Broadcast(bytes, _) => bytes,
            Output::Slices(_) => &[],
            Output::Vec(bytes) => bytes,
            Output::Shared(bytes) => bytes,
        }
    }

    /// In one piece: a datagram.
    fn to_bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Output::Slices(slices) => slices.iter().flat_map(|slice| slice.iter().copied()).collect(),
            other => other.bytes().into(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Output::Slices(slices) => slices.iter().map(|slice| slice.len()).sum(),
            other => other.bytes().len(),
        }
    }
}

impl State {
    pub(crate) fn recv(&mut self, turn: u32, buffer: &mut [u8]) -> io::Result<usize> {
        match self.phase {
            Phase::Listening => return Err(no_stream()),
            _ if self.datagrams => return Err(no_bytes()),
            Phase::Opening if self.is_established() => {}
            Phase::Open => {}
            Phase::Dead => return Err(self.lost_error().map_or_else(would_block, clone_error)),
            _ => return Err(would_block()),
        }
        let most = buffer.len().min(*self.read_budget(turn) as usize);
        if buffer.is_empty() || self.is_at_end() {
            return Ok(0);
        }
        if most == 0 {
            return Err(would_block());
        }
        if let Some(read) = self.read_again(&mut buffer[..most]) {
            *self.read_budget(turn) -= read as u32;
            return Ok(read);
        }
        let Some(source) = &mut self.source else { return Err(would_block()) };
        let plain = source.is_plain();
        match source.as_dyn().recv(&mut buffer[..most]) {
            Ok(0) => {
                self.read_ended = true;
                self.busy = true;
                Ok(0)
            }
            Ok(read) => {
                let read = read.min(most);
                self.stamp();
                let left = self.read_budget(turn);
                // A plain socket that gives less than was asked for has no more. This saves a
                // hook that reads until there is nothing its last call.
                *left = if plain && read < most { 0 } else { *left - read as u32 };
                Ok(read)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // A source of records may well have taken in a part of one.
                self.busy |= !plain;
                Err(would_block())
            }
            Err(error) => {
                self.busy = true;
                self.lost_reading(&error);
                Err(error)
            }
        }
    }

    /// What was put back comes first. It is no sign of life of the peer.
    fn read_again(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let unread = self.unread.as_mut()?;
        let read = unread.take(buffer);
        if unread.len() == 0 {
            self.unread = None;
        }
        Some(read)
    }

    pub(crate) fn unread(&mut self, bytes: &[u8]) {
        // Reading goes on after a write that failed. A datagram has its hook, and no second one.
        if !self.datagrams
            && !matches!(self.phase, Phase::Closing | Phase::Lingering | Phase::Dead | Phase::Closed)
        {
            self.unread.get_or_insert_default().put_back(bytes);
        }
    }

    pub(crate) fn recv_urgent(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.phase {
            Phase::Listening => return Err(no_stream()),
            Phase::Opening | Phase::Open => {}
            _ => return Err(would_block()),
        }
        let Some(fd) = self.fd() else { return Err(would_block()) };
        match sys::stream::recv_urgent(fd, buffer) {
            Ok(read) => {
                self.stamp();
                Ok(read)
            }
            // EINVAL: there is no urgent byte, or it was taken.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::InvalidInput) => {
                Err(would_block())
            }
            Err(error) => {
                self.lost_reading(&error);
                Err(error)
            }
        }
    }

    pub(crate) fn send(&mut self, turn: u32, bytes: &[u8]) -> io::Result<usize> {
        if let Some(error) = self.lost_error() {
            return Err(clone_error(error));
        }
        self.check_open_for_output()?;
        if self.datagrams {
            return Err(no_bytes());
        }
        if bytes.is_empty() || !self.outbox.is_empty() || !self.takes_output() {
            return Ok(0);
        }
        match self.send_now(turn, bytes) {
            Ok((sent, _)) => Ok(sent),
            Err(error) => {
                self.lost_writing(&error);
                Err(error)
            }
        }
    }

    pub(crate) fn push(&mut self, turn: u32, output: Output<'_>) -> io::Result<()> {
        if self.datagrams {
            return self.push_datagram(turn, &output.to_bytes(), None, true);
        }
        let len = output.len();
        if len > 0 && !self.outbox.takes(len) && self.check_open_for_output().is_ok() {
            return self.over_limit(len);
        }
        self.push_unlimited(turn, output)
    }

    /// As `push`, for bytes that were promised to be taken.
    pub(crate) fn push_unlimited(&mut self, turn: u32, output: Output<'_>) -> io::Result<()> {
        if self.datagrams {
            return self.push_datagram(turn, &output.to_bytes(), None, false);
        }
        if self.lost || self.phase == Phase::ConnectFailed {
            return Ok(());
        }
        self.check_open_for_output()?;
        let len = output.len();
        if len == 0 {
            return Ok(());
        }
        // The first push of a turn goes out at once; what follows it in the same turn is gathered,
        // and leaves in one call at the settle.
        let mut sent = 0;
        if self.direct_turn != turn && self.outbox.is_empty() && self.takes_output() {
            self.direct_turn = turn;
            let result = match &output {
                Output::Slices(slices) => self.send_slices_now(turn, slices),
                other => self.send_now(turn, other.bytes()),
            };
            match result {
                Ok((taken, offered)) => {
                    sent = taken;
                    self.blocked = taken < offered && (taken == 0 || !self.is_boxed());
                }
                Err(error) => {
                    self.lost_writing(&error);
                    return Ok(());
                }
            }
        }
        match output {
            Output::Bytes(bytes) => self.outbox.push(&bytes[sent..]),
            Output::Slices(slices) => {
                let mut skip = sent;
                for slice in slices {
                    let skipped = skip.min(slice.len());
                    skip -= skipped;
                    self.outbox.push(&slice[skipped..]);
                }
            }
            Output::Vec(bytes) => self.outbox.push_vec(bytes, sent),
            Output::Shared(bytes) => self.outbox.push_shared(bytes, sent),
            Output::Broadcast(bytes, shared) => match len - sent {
                0 => {}
                left if left < SHARE => self.outbox.push(&bytes[sent..]),
                _ => self.outbox.push_shared(shared.get_or_insert_with(|| bytes.into()).clone(), sent),
            },
        }
        Ok(())
    }

    pub(crate) fn push_producer(&mut self, producer: Box<dyn Producer>) -> io::Result<()> {
        if self.lost || self.phase == Phase::ConnectFailed {
            return Ok(());
        }
        self.check_open_for_output()?;
        if self.datagrams {
            return Err(no_bytes());
        }
        if !self.outbox.takes(0) {
            return self.over_limit(0);
        }
        self.outbox.push_producer(producer);
        Ok(())
    }

    /// Send what is queued, as far as the socket and the budget of the turn allow.
    pub(crate) fn flush(&mut self, turn: u32) -> Flushed {
        if self.datagrams {
            return self.flush_datagrams(turn);
        }
        let mut budget = *self.write_budget(turn) as usize;
        let before = budget;
        let Some(source) = &mut self.source else { return Flushed::Empty };
        let flushed = self.outbox.flush(source, &mut budget);
        *self.write_budget(turn) = budget as u32;
        if budget < before {
            self.stamp();
        }
        self.blocked = matches!(flushed, Flushed::Blocked);
        flushed
    }

    /// Offer bytes to the socket past the empty queue; how many it took, of how many.
    fn send_now(&mut self, turn: u32, bytes: &[u8]) -> io::Result<(usize, usize)> {
        self.offer(turn, bytes.len(), |source, most| (source.send(&bytes[..most]), most))
    }

    fn send_slices_now(&mut self, turn: u32, slices: &[IoSlice<'_>]) -> io::Result<(usize, usize)> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        self.offer(turn, len, |source, most| {
            let (pieces, count) = gathered(slices.iter().map(|slice| &**slice), most);
            let offered = pieces.iter().map(|piece| piece.len()).sum();
            (source.send_vectored(&pieces[..count]), offered)
        })
    }

    fn offer(
        &mut self,
        turn: u32,
        len: usize,
        send: impl FnOnce(&mut dyn Source, usize) -> (io::Result<usize>, usize),
    ) -> io::Result<(usize, usize)> {
        let most = len.min(*self.write_budget(turn) as usize);
        if most == 0 {
            return Ok((0, 0));
        }
        let Some(source) = &mut self.source else { return Ok((0, 0)) };
        match send(source.as_dyn(), most) {
            (Ok(0), offered) => Ok((0, offered)),
            (Ok(sent), offered) => {
                let sent = sent.min(offered);
                *self.write_budget(turn) -= sent as u32;
                self.stamp();
                Ok((sent, offered))
            }
            (Err(error), offered) if error.kind() == ErrorKind::WouldBlock => Ok((0, offered)),
            (Err(error), _) => Err(error),
        }
    }

    /// Whether the source can be offered bytes: connected, and any handshake done.
    fn takes_output(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Open) && self.is_established()
    }

    pub(crate) fn check_open_for_output(&self) -> io::Result<()> {
        if self.phase == Phase::Listening {
            return Err(no_stream());
        }
        if self.shut || self.is_closing() {
            return Err(io::Error::new(
                ErrorKind::BrokenPipe,
                "the channel is closing: nothing can be sent after close, abort or shutdown_write",
            ));
        }
        Ok(())
    }

    pub(crate) fn over_limit(&mut self, len: usize) -> io::Result<()> {
        match self.on_limit {
            OnLimit::Refuse => Err(io::Error::new(
                ErrorKind::QuotaExceeded,
                format!(
                    "{len} bytes more than the {} queued would be over the limit of {}; the peer does not take them",
                    self.outbox.queued(),
                    self.outbox.limits().hard
                ),
            )),
            OnLimit::End => {
                self.kill_over_limit();
                Ok(())
            }
        }
    }

    pub(crate) fn kill_over_limit(&mut self) {
        self.reset = true;
        self.kill(Reason::Limit);
    }
}

fn no_bytes() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "this channel carries datagrams, not a stream")
}

fn would_block() -> io::Error {
    ErrorKind::WouldBlock.into()
}

fn no_stream() -> io::Error {
    io::Error::new(ErrorKind::NotConnected, "a listener carries no data")
}
