//! Input that a hook has put back, to be read again before anything that comes after it.

#[derive(Default)]
pub(crate) struct Unread {
    bytes: Vec<u8>,
    /// How many of `bytes`, from the start, were read again.
    taken: usize,
}

impl Unread {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Put `bytes` before what is here.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        // The common case: a part of what was just taken.
        if let Some(start) = self.taken.checked_sub(bytes.len()) {
            self.bytes[start..self.taken].copy_from_slice(bytes);
            self.taken = start;
        } else {
            self.bytes.splice(..self.taken, bytes.iter().copied());
            self.taken = 0;
        }
    }

    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.drain(..self.taken);
        self.bytes
    }

    pub(crate) fn take(&mut self, buffer: &mut [u8]) -> usize {
        let taken = self.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&self.bytes[self.taken..][..taken]);
        self.taken += taken;
        taken
    }
}
