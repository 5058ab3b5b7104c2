//! Sending descriptors to another process, and receiving them.

use std::io;
use std::os::fd::OwnedFd;

use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::error::LookupError;
use crate::token::Token;

impl Channel<'_> {
    /// As [`push`](Channel::push), on a Unix-domain socket, and send `descriptors` along with the first of `bytes`:
    /// Python's `socket.send_fds`, C's `SCM_RIGHTS`. The other process gets duplicates of them; these here are
    /// closed when they have left, or when they cannot leave.
    ///
    /// Bytes and descriptors arrive in the order of the pushes. Each descriptor counts as 4 KiB towards the hard
    /// limit.
    ///
    /// ```
    /// use dispatch_loop::{Channel, ChannelMap, Dispatcher};
    /// use std::fs::File;
    /// use std::io;
    /// use std::os::fd::OwnedFd;
    /// use std::os::unix::net::UnixStream;
    ///
    /// struct Sender;
    ///
    /// impl Dispatcher for Sender {
    ///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
    ///         ch.push_descriptors(b"a file\n", vec![File::open("/dev/null")?.into()])?;
    ///         ch.close();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// #[derive(Default)]
    /// struct Receiver {
    ///     files: Vec<OwnedFd>,
    /// }
    ///
    /// impl Dispatcher for Receiver {
    ///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
    ///         let mut bytes = [0; 64];
    ///         ch.recv_descriptors(&mut bytes, &mut self.files).map(drop)
    ///     }
    /// #   fn handle_close(&mut self, _: &mut Channel<'_>, _: &dispatch_loop::Reason) {
    /// #       let file = self.files.pop().expect("a descriptor");
    /// #       assert_eq!(io::read_to_string(File::from(file)).unwrap(), "");
    /// #   }
    /// }
    ///
    /// let (one, other) = UnixStream::pair()?;
    /// let mut map = ChannelMap::new()?;
    /// map.add(one, Sender)?;
    /// map.add(other, Receiver::default())?;
    /// dispatch_loop::run(&mut map)?;
    /// # io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// Those of [`push`](Channel::push); `InvalidInput` without a byte, without a descriptor, and with more than
    /// 253; `Unsupported` on a socket of another kind, or with a source around it.
    #[doc(alias = "send_fds")]
    pub fn push_descriptors(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) -> io::Result<()> {
        self.touch();
        let token = self.token();
        let result = self.map_mut().push_descriptors(token, bytes, descriptors);
        self.named(result)
    }

    /// As [`recv`](Channel::recv), and add the descriptors that came along with these bytes to `into`: Python's
    /// `socket.recv_fds`. They are close-on-exec. Descriptors come with the read in which the first of the bytes is
    /// that they were pushed with; that read may begin before these bytes, but does not go beyond them.
    ///
    /// Every other way to read ([`recv`](Channel::recv), [`read_with`](Channel::read_with), and the default
    /// `handle_read`) closes descriptors that come, so that a peer cannot fill the process with them.
    ///
    /// # Errors
    /// Those of [`recv`](Channel::recv). If the process has no room for all the descriptors that came, the
    /// connection is lost, with `QuotaExceeded`, and those of this read are closed. `Unsupported` as in
    /// [`push_descriptors`](Channel::push_descriptors).
    #[doc(alias = "recv_fds")]
    pub fn recv_descriptors(&mut self, buffer: &mut [u8], into: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let turn = self.map().turn;
        let mut new = Vec::new();
        let result = self.link_mut().and_then(|link| link.recv_descriptors(turn, buffer, &mut new));
        into.append(&mut new);
        self.named(result)
    }
}

impl ChannelMap {
    fn push_descriptors(&mut self, token: Token, bytes: &[u8], descriptors: Vec<OwnedFd>) -> io::Result<()> {
        self.offer_gathered(token, bytes.len());
        let Some(seat) = self.slots.get_mut(token) else { return Err(LookupError::Gone(token).into()) };
        if seat.link.push_descriptors(self.turn, self.gather.bytes_of(token), bytes, descriptors)? {
            self.gather.sent(token);
        }
        self.count_queue(token);
        Ok(())
    }
}
