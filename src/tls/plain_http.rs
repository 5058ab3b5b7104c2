//! Somebody who speaks plain HTTP to a TLS port.

const METHODS: [&[u8]; 8] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"PATCH "];

/// What is answered, in the clear.
pub(super) const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 41\r\n\
    Connection: close\r\n\r\n\
    This port speaks HTTPS: ask for https://\n";

/// The first bytes of a client, as many as it takes to know what it speaks.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Beginning {
    bytes: [u8; 7],
    len: u8,
}

impl Beginning {
    pub(super) fn add(&mut self, more: &[u8]) {
        for (place, byte) in self.bytes[self.len.into()..].iter_mut().zip(more) {
            *place = *byte;
            self.len += 1;
        }
    }

    /// A handshake's first record.
    pub(super) fn is_tls(&self) -> bool {
        self.len > 0 && self.bytes[0] == 22
    }

    pub(super) fn is_http(&self) -> bool {
        let bytes = &self.bytes[..self.len.into()];
        self.len > 0 && METHODS.iter().any(|method| method.starts_with(bytes) || bytes.starts_with(method))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
