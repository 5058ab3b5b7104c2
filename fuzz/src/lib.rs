//! What holds for every framing, and a connection in memory. The targets hand in any bytes, and sizes to
//! cut them by. `seeds` has a few inputs to begin with: `cp -rn fuzz/seeds/. fuzz/corpus`, then
//! `cargo +nightly fuzz run chat`.

pub mod wire;

use dispatch_loop::framing::{FrameError, Framing};

#[allow(dead_code)]
#[path = "../../tests/support/heap.rs"]
mod heap;

/// A frame or an error, and how many bytes of the stream had been taken in by then.
type Came = (usize, Result<Vec<u8>, FrameError>);

/// All that must hold, of a framing that `make` makes anew, with this limit.
pub fn check<F: Framing>(make: impl Fn() -> F, limit: usize, bytes: &[u8], sizes: &[u8]) {
    let whole = feed(make(), &[bytes]);
    assert_eq!(whole, feed(make(), &cut(bytes, sizes)), "the pieces make a difference");
    keeps_little(make(), limit, &cut(bytes, sizes));
    for (_, result) in whole {
        if let Ok(frame) = result {
            comes_back(make(), &frame);
        }
    }
    comes_back(make(), bytes);
}

/// Pieces of these sizes, over and over; none of them is empty.
pub fn pieces<'a>(bytes: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    cut(bytes, sizes).into_iter().filter(|piece| !piece.is_empty()).collect()
}

/// Pieces of these sizes, over and over.
fn cut<'a>(mut bytes: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes.iter().chain(&[1]).cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at(bytes.len().min(usize::from(*size)));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn feed(mut framing: impl Framing, pieces: &[&[u8]]) -> Vec<Came> {
    let mut came = Vec::new();
    let mut offset = 0;
    for piece in pieces {
        let mut input = *piece;
        loop {
            let result = framing.next(&mut input).map(|frame| frame.map(<[u8]>::to_vec));
            let Some(result) = result.transpose() else { break };
            let failed = result.is_err();
            came.push((offset + piece.len() - input.len(), result));
            if failed && is_final(&mut framing) {
                return came;
            }
        }
        assert!(input.is_empty(), "None, and not all taken in");
        offset += piece.len();
    }
    let last = framing.end().map(|frame| frame.map(<[u8]>::to_vec)).transpose();
    came.extend(last.map(|result| (offset, result)));
    came
}

/// A line that was too long is an error to be survived; any other comes again.
fn is_final(framing: &mut impl Framing) -> bool {
    framing.next(&mut &b""[..]).is_err()
}

/// The limit, and a byte for the `\r` or the comma.
fn keeps_little(mut framing: impl Framing, limit: usize, pieces: &[&[u8]]) {
    let before = heap::live();
    heap::reset_peak();
    for piece in pieces {
        let mut input = *piece;
        loop {
            match framing.next(&mut input).map(|frame| frame.is_some()) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if is_final(&mut framing) => return,
                Err(_) => {}
            }
        }
        let kept = heap::peak() - before;
        assert!(kept <= limit as i64 + 1, "{kept} bytes kept with a limit of {limit}");
    }
}

/// Encoded and decoded, a frame is what it was; or it is refused, and leaves no trace.
fn comes_back(framing: impl Framing, frame: &[u8]) {
    let mut output = Vec::new();
    match framing.encode(frame, &mut output) {
        Ok(()) => assert_eq!(feed(framing, &[&output]), [(output.len(), Ok(frame.to_vec()))]),
        Err(_) => assert!(output.is_empty()),
    }
}
