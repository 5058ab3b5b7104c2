//! What a peer sends, as a terminal or a log may show it, and where it may be cut.

/// The text with what could steer a terminal, or turn its lines around, escaped; lines and tabs stay.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.replace("\r\n", "\n").chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c if c.is_control() || turns_around(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// Unicode's marks for writing from right to left.
fn turns_around(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How many of these bytes do not end in the middle of a character of UTF-8, or of a `\r\n`.
pub fn whole_characters(bytes: &[u8]) -> usize {
    let begun = |tail: &[u8]| match std::str::from_utf8(tail) {
        Ok(text) => text == "\r",
        Err(error) => error.valid_up_to() == 0 && error.error_len().is_none(),
    };
    let most = bytes.len().min(3);
    let tail = (1..=most).find(|&len| begun(&bytes[bytes.len() - len..]));
    bytes.len() - tail.unwrap_or(0)
}
