//! How many instructions a byte the framings and the search for a terminator take when a peer sends
//! byte by byte, and whether double the data takes more than double the instructions. Counts do not
//! lie where times do.
//!
//! `cargo bench --bench count` ends with status 1 when a bound is broken. It takes some seconds, or one
//! or two minutes where a step is slow (in some virtual machines); `-- --quick` counts a twelfth of the
//! bytes within the same bounds, and a word picks the lines that contain it. `cargo test --benches`, or
//! `--test`, only looks whether it all works.
//!
//! What is counted are the instructions in user space between two marks, each stepped over with
//! ptrace. A system call is one. So is each turn of a repeated string instruction (x86's `rep movsb`):
//! much copying does not hide in it. aarch64 needs the atomic instructions of Armv8.1, as a loop of
//! the older exclusive loads and stores never ends when stepped.
#![allow(unsafe_code)]

#[allow(dead_code, unreachable_pub)]
#[path = "../src/layers/terminator.rs"]
mod terminator;

use std::hint::black_box;
use std::process::ExitCode;

use dispatch_loop::framing::{ByteOrder, Framing, LengthPrefixed, Lines, Netstrings, Prefix};
use terminator::{Piece, Splitter};

const MOST_A_BYTE: f64 = 100.0;
const MOST_FOR_DOUBLE: f64 = 2.1;

struct Case {
    name: &'static str,
    /// The length of a frame, with all that frames it. `ALL`: one frame is all the data.
    frame: usize,
    make: fn(usize) -> Vec<u8>,
    /// Takes the data byte by byte; how many frames came out.
    take: fn(&[u8]) -> usize,
}

const ALL: usize = 0;
const NUMBERED: LengthPrefixed = LengthPrefixed::new(Prefix::U32, ByteOrder::Big);
const NASTY: &str = "aaaaaaab";

const CASES: [Case; 10] = [
    case("lines of 40 bytes", 40, |len| message(len, "\n"), |data| frames(Lines::new(), data)),
    case("one long line", ALL, |len| message(len, "\n"), |data| frames(Lines::new(), data)),
    case("netstrings of 40 bytes", 40, netstring, |data| frames(Netstrings::new(), data)),
    case("one long netstring", ALL, netstring, |data| frames(Netstrings::new(), data)),
    case("length-prefixed of 40 bytes", 40, length_prefixed, |data| frames(NUMBERED, data)),
    case("one long length-prefixed", ALL, length_prefixed, |data| frames(NUMBERED, data)),
    case("terminator of 1 byte", 40, |len| message(len, "\n"), |data| messages("\n", data)),
    case("terminator of 2 bytes", 40, |len| message(len, "\r\n"), |data| messages("\r\n", data)),
    case("terminator of 3 bytes", 40, |len| message(len, "\n.\n"), |data| messages("\n.\n", data)),
    case("aaaaaaab after aaaa...", ALL, |len| message(len, NASTY), |data| messages(NASTY, data)),
    // The place for an echoed message: its bytes through a loop, counted and bounded the same way.
];

const fn case(
    name: &'static str,
    frame: usize,
    make: fn(usize) -> Vec<u8>,
    take: fn(&[u8]) -> usize,
) -> Case {
    Case { name, frame, make, take }
}

fn main() -> ExitCode {
    let (options, only): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word.starts_with('-'));
    let has = |option: &str| options.iter().any(|given| given == option);
    let only_looks = has("--test") || !has("--bench");
    let sizes = match () {
        () if only_looks => [40, 80],
        () if has("--quick") => [160, 320],
        () => [2000, 4000],
    };
    let Some(thousand) = count(|| spin(1000)) else {
        println!("not counted here: needs Linux on x86_64 or aarch64, and leave to trace a child");
        return ExitCode::SUCCESS;
    };
    // The counter is the first to be tested: two instructions a turn, and none lost.
    assert_eq!(count(|| spin(2000)), Some(thousand + 2000), "a loop of known length is miscounted");

    let mut broken = Vec::new();
    println!("{:<28} {:>7} {:>7} {:>6}", "instructions a byte, of", sizes[0], sizes[1], "ratio");
    for case in &CASES {
        if !only.is_empty() && !only.iter().any(|word| case.name.contains(word)) {
            continue;
        }
        let [once, twice] = sizes.map(|size| case.count(size));
        let [first, second] = [once / sizes[0] as f64, twice / sizes[1] as f64];
        let ratio = twice / once;
        println!("{:<28} {first:>7.1} {second:>7.1} {ratio:>6.2}", case.name);
        if first.max(second) >= MOST_A_BYTE {
            broken.push(format!("{} takes {:.1} a byte", case.name, first.max(second)));
        }
        if ratio > MOST_FOR_DOUBLE {
            broken.push(format!("{} takes {ratio:.2} times as many for double", case.name));
        }
    }
    if only_looks {
        println!("it works; `cargo bench` holds it to its bounds");
    } else if broken.is_empty() {
        println!("within bounds");
    } else {
        println!("NOT within {MOST_A_BYTE} a byte, {MOST_FOR_DOUBLE} for double: {}", broken.join("; "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

impl Case {
    fn count(&self, size: usize) -> f64 {
        let frame = if self.frame == ALL { size } else { self.frame };
        let data = (self.make)(frame).repeat(size / frame);
        assert_eq!((data.len(), (self.take)(&data)), (size, size / frame), "{}", self.name);
        let instructions = count(|| {
            black_box((self.take)(black_box(&data)));
        });
        instructions.map_or(f64::INFINITY, |instructions| instructions as f64)
    }
}

fn frames(mut framing: impl Framing, data: &[u8]) -> usize {
    let mut frames = 0;
    for mut byte in data.chunks(1) {
        while let Some(frame) = framing.next(&mut byte).unwrap() {
            black_box(frame);
            frames += 1;
        }
    }
    frames
}

fn messages(terminator: &str, data: &[u8]) -> usize {
    let mut splitter = Splitter::new(terminator.into()).unwrap();
    let mut messages = 0;
    for mut byte in data.chunks(1) {
        while let Some(piece) = splitter.next(&mut byte) {
            messages += usize::from(matches!(black_box(piece), Piece::End));
        }
    }
    messages
}

// One frame of so many bytes, with all that frames it.

fn netstring(len: usize) -> Vec<u8> {
    let content = len - 3 - (len - 3).ilog10() as usize;
    [format!("{content}:").as_bytes(), &vec![b'x'; content], b","].concat()
}

fn length_prefixed(len: usize) -> Vec<u8> {
    [&(len as u32 - 4).to_be_bytes()[..], &vec![b'x'; len - 4]].concat()
}

fn message(len: usize, terminator: &str) -> Vec<u8> {
    [&vec![b'a'; len - terminator.len()], terminator.as_bytes()].concat()
}

/// The instructions that `work` takes when it is done a second time: what is set up at first use is
/// left out, and so are the marks. `None` where nothing can be counted, and where they are too many.
fn count(mut work: impl FnMut()) -> Option<u64> {
    Some(stepper::steps(&mut work)? - stepper::steps(&mut || ())?)
}

/// Two instructions a turn.
fn spin(turns: u64) {
    // SAFETY: changes nothing but a register of its own and the flags, and ends.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("2: dec {0}", "jnz 2b", inout(reg) turns => _);
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("2: subs {0}, {0}, #1", "b.ne 2b", inout(reg) turns => _);
    }
    black_box(turns);
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod stepper {
    pub(super) fn steps(_: &mut dyn FnMut()) -> Option<u64> {
        None
    }
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod stepper {
    /// Then a count is given up.
    const MOST_STEPS: u64 = 1_000_000;

    /// Forks a child that does the work, and does it again between two SIGSTOPs; steps it from the
    /// one to the other.
    pub(super) fn steps(work: &mut dyn FnMut()) -> Option<u64> {
        stay_on_one_processor();
        // SAFETY: this process has one thread, so its child may do all that it may do itself.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: numbers go in, and no memory is touched.
            unsafe {
                if libc::ptrace(libc::PTRACE_TRACEME, 0, 0_usize, 0_usize) != 0 {
                    libc::_exit(1);
                }
                work();
                libc::raise(libc::SIGSTOP);
                work();
                libc::raise(libc::SIGSTOP);
                libc::_exit(0);
            }
        }
        let stopped_by = || {
            let mut status = 0;
            // SAFETY: `status` lives for as long as the call runs.
            let waited = unsafe { libc::waitpid(child, &mut status, 0) };
            (waited == child && libc::WIFSTOPPED(status)).then(|| libc::WSTOPSIG(status))
        };
        let ask = |request, data: usize| {
            // SAFETY: none of the requests below has memory of this process read or written.
            (unsafe { libc::ptrace(request, child, 0_usize, data) } == 0).then_some(())
        };
        if stopped_by()? != libc::SIGSTOP {
            return None;
        }
        // A child that is given up below ends with this process.
        ask(libc::PTRACE_SETOPTIONS, libc::PTRACE_O_EXITKILL as usize)?;
        for taken in 0..MOST_STEPS {
            ask(libc::PTRACE_SINGLESTEP, 0)?;
            match stopped_by()? {
                libc::SIGTRAP => {}
                libc::SIGSTOP => {
                    ask(libc::PTRACE_CONT, 0)?;
                    stopped_by();
                    return Some(taken);
                }
                _ => return None,
            }
        }
        None
    }

    /// A step is four times as fast when it does not wake another processor.
    fn stay_on_one_processor() {
        // SAFETY: an all-zero `cpu_set_t` is an empty set, and it outlives the call that reads it.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(libc::sched_getcpu().max(0) as usize, &mut set);
            libc::sched_setaffinity(0, size_of_val(&set), &set);
        }
    }
}
