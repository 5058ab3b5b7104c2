//! A connection in memory: what a peer sends comes in pieces, and what it is sent is kept. It takes no
//! more at a time than it likes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{ChannelMap, Dispatcher, Source};

/// Turns that a connection may take for each piece and each byte of output, and besides.
const TURNS: usize = 1000;

struct Peer {
    pieces: VecDeque<Vec<u8>>,
    got: Rc<RefCell<Vec<u8>>>,
    /// The most that it takes at a time; after that, nothing once.
    gulp: usize,
    is_full: bool,
}

impl Source for Peer {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut piece) = self.pieces.pop_front() else { return Ok(0) };
        let read = piece.len().min(buffer.len());
        buffer[..read].copy_from_slice(&piece[..read]);
        if read < piece.len() {
            self.pieces.push_front(piece.split_off(read));
        }
        Ok(read)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_full = !self.is_full;
        if !self.is_full {
            return Err(ErrorKind::WouldBlock.into());
        }
        let sent = bytes.len().min(self.gulp);
        self.got.borrow_mut().extend_from_slice(&bytes[..sent]);
        Ok(sent)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn input_pending(&self) -> bool {
        !self.pieces.is_empty()
    }
}

/// Let a dispatcher serve a peer that sends these pieces, none of them empty, and then its end, and that
/// takes at most `gulp` bytes at a time. Returns what the peer got. Whoever pauses reading goes on in the
/// next turn.
pub fn serve<D: Dispatcher>(pieces: &[&[u8]], gulp: usize, dispatcher: D) -> Vec<u8> {
    thread_local!(static MAP: RefCell<ChannelMap> = RefCell::new(ChannelMap::new().unwrap()));
    let got = Rc::new(RefCell::new(Vec::new()));
    let peer = Peer {
        pieces: pieces.iter().map(|piece| piece.to_vec()).collect(),
        got: got.clone(),
        gulp,
        is_full: false,
    };
    MAP.with_borrow_mut(|map| {
        let token = map.add_source(peer, dispatcher).unwrap().token();
        let mut turns = 0;
        while let Ok(mut ch) = map.channel(token) {
            if ch.is_paused() && ch.queued() == 0 {
                ch.resume_reading();
            }
            ch.source_ready();
            map.turn(Some(Duration::ZERO)).unwrap();
            turns += 1;
            let due = TURNS + 10 * (pieces.len() + got.borrow().len());
            assert!(turns < due, "the connection does not end");
        }
    });
    got.take()
}
