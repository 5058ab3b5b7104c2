//! The buffers for reads: one for the loop, and one for a read within the closure of another.

/// The most that one read takes.
const BUFFER: usize = 64 * 1024;
pub(crate) type Buffer = Box<[u8; BUFFER]>;

/// Both, while they are not in use.
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

/// Made on the heap: it is too big for a small stack.
#[cold]
fn new_buffer() -> Buffer {
    match vec![0; BUFFER].into_boxed_slice().try_into() {
        Ok(buffer) => buffer,
        Err(_) => unreachable!("it has that length"),
    }
}
