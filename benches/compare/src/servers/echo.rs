//! Shared by the servers with level-triggered readiness: reading once and writing it back, and a table of
//! connections indexed by descriptor.

use std::io::{ErrorKind, Read, Write};

/// What to do with a connection after it was served.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for the same as before.
    Same,
    /// Wait for input from now on.
    Input,
    /// Something is unsent: wait for room from now on.
    Room,
    /// Drop it: it has ended.
    End,
}

/// Serves a connection that is ready. Nothing is read while something is unsent, so a peer that does not read
/// costs at most one buffer of memory.
pub(super) fn serve(mut stream: impl Read + Write, unsent: &mut Vec<u8>, buffer: &mut [u8]) -> Next {
    if !unsent.is_empty() {
        return match stream.write(unsent) {
            Ok(sent) if sent == unsent.len() => {
                *unsent = Vec::new();
                Next::Input
            }
            Ok(sent) => {
                unsent.drain(..sent);
                Next::Same
            }
            Err(error) if is_temporary(error.kind()) => Next::Same,
            Err(_) => Next::End,
        };
    }
    let data = match stream.read(buffer) {
        Ok(0) => return Next::End,
        Ok(read) => &buffer[..read],
        Err(error) if is_temporary(error.kind()) => return Next::Same,
        Err(_) => return Next::End,
    };
    let sent = match stream.write(data) {
        Ok(sent) => sent,
        Err(error) if is_temporary(error.kind()) => 0,
        Err(_) => return Next::End,
    };
    if sent == data.len() {
        return Next::Same;
    }
    unsent.extend_from_slice(&data[sent..]);
    Next::Room
}

pub(super) fn is_temporary(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Connections indexed by descriptor; descriptors are small numbers.
pub(crate) struct Table<C>(Vec<Option<C>>);

impl<C> Table<C> {
    pub(crate) fn new() -> Table<C> {
        Table(Vec::new())
    }

    pub(crate) fn insert(&mut self, key: usize, connection: C) {
        if self.0.len() <= key {
            self.0.resize_with(key + 1, || None);
        }
        self.0[key] = Some(connection);
    }

    pub(crate) fn get_mut(&mut self, key: usize) -> Option<&mut C> {
        self.0.get_mut(key)?.as_mut()
    }

    pub(crate) fn remove(&mut self, key: usize) -> Option<C> {
        self.0.get_mut(key)?.take()
    }
}
