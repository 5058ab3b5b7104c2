//! The buffers that reads lend: one for the loop, and one for a read within another's closure.

/// What one read takes at most.
const BUFFER: usize = 64 * 1024;
pub(crate) type Buffer = Box<[u8; BUFFER]>;

/// Both, while they are not lent.
#[derive(Default)]
pub(crate) struct Buffers {
    first: Option<Buffer>,
    second: Option<Buffer>,
}

impl Buffers {
    #[inline]
    pub(crate) fn take(&mut self) -> Buffer {
        match self.first.take() {
            Some(buffer) => buffer,
            None => self.take_second(),
        }
    }

    #[cold]
    #[inline(never)]
    fn take_second(&mut self) -> Buffer {
        self.second.take().unwrap_or_else(new_buffer)
    }

    #[inline]
    pub(crate) fn give_back(&mut self, buffer: Buffer) {
        match self.first {
            None => self.first = Some(buffer),
            Some(_) => self.give_second_back(buffer),
        }
    }

    #[cold]
    #[inline(never)]
    fn give_second_back(&mut self, buffer: Buffer) {
        self.second = Some(buffer);
    }
}

/// On the heap from the start: it is too big for a small stack.
#[cold]
fn new_buffer() -> Buffer {
    match vec![0; BUFFER].into_boxed_slice().try_into() {
        Ok(buffer) => buffer,
        Err(_) => unreachable!("it has that length"),
    }
}
