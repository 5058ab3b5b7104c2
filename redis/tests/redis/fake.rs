//! Servers that are none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use dispatch_loop_redis::{Cause, Error, Options, Redis, Value};

use super::support::*;

/// Serve one connection after another, each with its number.
fn serve(mut each: impl FnMut(usize, TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            stream.set_nodelay(true).unwrap();
            each(number, stream);
        }
    });
    address
}

const HELLO: &[u8] = b"%2\r\n+version\r\n+0.0.0\r\n+proto\r\n:3\r\n";

fn read_some(stream: &mut TcpStream) -> usize {
    stream.read(&mut [0; 64 * 1024]).unwrap_or(0)
}

fn quick() -> Options {
    let short = Duration::from_millis(200);
    options().with_connect_timeout(short).with_timeout(short)
}

#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"*1\r\n*1\r\n*1\r\n*1\r\n$-7\r\n",
        b"+\n",
    ] {
        let address = serve(move |_, mut stream| {
            read_some(&mut stream);
            let _ = stream.write_all(garbage);
            read_some(&mut stream);
        });
        let (mut map, redis, told) =
            client_with(&format!("redis://{address}"), &quick().with_max_attempts(2));
        redis
            .call(&mut map, ["PING"], |_, answer| assert!(!answer.unwrap_err().is_outcome_unknown()))
            .unwrap();
        dispatch_loop::run(&mut map).unwrap();
        assert_eq!(told.disconnected(), 2, "{garbage:?}");
        assert!(matches!(told.gone(), Some(Cause::Connection(_) | Cause::TimedOut)));
    }
    // After the greeting, and answers to nothing.
    for garbage in [&b"garbage\r\n"[..], b"+PONG\r\n+PONG\r\n", b":1\r\n?"] {
        let address = serve(move |_, mut stream| {
            read_some(&mut stream);
            stream.write_all(HELLO).unwrap();
            read_some(&mut stream);
            let _ = stream.write_all(garbage);
            read_some(&mut stream);
        });
        let (mut map, redis, told) = client_with(&format!("redis://{address}"), &quick());
        let _ = ask(&mut map, &redis, ["PING"]);
        turn_until(&mut map, "the end", |_| {
            matches!(told.cause(), Some(Cause::Connection(_) | Cause::TimedOut))
        });
    }
}

#[test]
fn who_never_answers_is_given_up() {
    // Not even the greeting.
    let mut held = Vec::new();
    let address = serve(move |_, stream| held.push(stream));
    let (mut map, redis, told) = client_with(&format!("redis://{address}"), &quick());
    assert!(matches!(ask(&mut map, &redis, ["PING"]), Err(Error::TimedOut { sent: false })));
    turn_until(&mut map, "two attempts", |_| told.disconnected() == 2);
    assert!(matches!(told.cause(), Some(Cause::TimedOut)));
    // Nothing but the greeting.
    let mut held = Vec::new();
    let address = serve(move |_, mut stream| {
        stream.write_all(HELLO).unwrap();
        held.push(stream);
    });
    let (mut map, redis, told) = client_with(&format!("redis://{address}"), &quick());
    wait_ready(&mut map, &redis);
    assert!(matches!(ask(&mut map, &redis, ["PING"]), Err(Error::TimedOut { sent: true })));
    turn_until(&mut map, "another attempt", |_| told.connected() == 2);
    assert!(matches!(told.cause(), Some(Cause::TimedOut)));
}

/// A connect that nobody answers ends in time, the first one and those after it.
#[test]
fn a_connect_does_not_take_for_ever() {
    // A listener whose backlog is full drops what comes.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let fill: Vec<_> = (0..300)
        .map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok())
        .collect();
    if fill.len() == 300 {
        println!("skipped: the backlog has no end here");
        return;
    }
    let (mut map, _redis, told) = client_with(&format!("redis://{address}"), &quick());
    turn_until(&mut map, "two attempts", |_| told.disconnected() == 2);
}

/// The same talk, cut after each of its bytes, in pieces of each size: what was answered is right, the rest is lost,
/// and the next connection works.
#[test]
fn answers_that_are_cut_short_are_none() {
    const ANSWERS: &[u8] = b":1\r\n$5\r\nhe\r\no\r\n*2\r\n:1\r\n%1\r\n+a\r\n~1\r\n#t\r\n-ERR no\r\n";
    const WHOLE: [usize; 4] = [4, 15, 39, 48];
    assert_eq!(ANSWERS.len(), WHOLE[3]);
    let address = serve(|number, mut stream| {
        let (cut, size) = (number / 2, [1, 7, 64][number % 3]);
        read_some(&mut stream);
        stream.write_all(HELLO).unwrap();
        while read_some(&mut stream) == 0 {}
        let end = if number % 2 == 1 { ANSWERS.len() } else { cut.min(ANSWERS.len()) };
        for piece in ANSWERS[..end].chunks(size) {
            if stream.write_all(piece).is_err() {
                return;
            }
            if number % 5 == 0 {
                thread::sleep(Duration::from_micros(200));
            }
        }
        if number % 2 == 1 {
            while read_some(&mut stream) > 0 {}
        }
    });
    for cut in 0..=ANSWERS.len() {
        let mut map = dispatch_loop::ChannelMap::new().unwrap();
        for is_whole in [false, true] {
            let told = Told::default();
            let redis =
                Redis::connect(&mut map, &format!("redis://{address}"), &options(), told.clone()).unwrap();
            wait_ready(&mut map, &redis);
            let answers: Results<Result<Value, Error>> = Results::default();
            for _ in WHOLE {
                let to = answers.clone();
                redis.call(&mut map, ["GET", "x"], move |_, answer| to.borrow_mut().push(answer)).unwrap();
            }
            turn_until(&mut map, "all answers", |_| answers.borrow().len() == 4);
            let whole = WHOLE.iter().filter(|end| is_whole || **end <= cut).count();
            for (i, answer) in answers.borrow().iter().enumerate() {
                match (i < whole, i, answer) {
                    (true, 0, Ok(Value::Int(1))) | (true, 2, Ok(Value::Array(_))) => {}
                    (true, 1, Ok(Value::Bytes(text))) if text == b"he\r\no" => {}
                    (true, 3, Err(Error::Server(_))) | (false, _, Err(Error::Lost(_))) => {}
                    _ => panic!("cut after {cut}: {answers:?}"),
                }
            }
            redis.abort(&mut map);
            turn_until(&mut map, "its end", |_| told.gone().is_some());
        }
    }
}

#[test]
fn a_server_that_floods_is_cut_off_at_the_limit() {
    let address = serve(|_, mut stream| {
        read_some(&mut stream);
        stream.write_all(HELLO).unwrap();
        stream.write_all(b"$1000000000\r\n").unwrap();
        while stream.write_all(&[b'x'; 64 * 1024]).is_ok() {}
    });
    let (mut map, redis, told) =
        client_with(&format!("redis://{address}"), &options().with_max_answer(1 << 20));
    let answer = ask(&mut map, &redis, ["GET", "x"]);
    assert!(matches!(answer, Err(Error::Lost(_) | Error::NotSent(_))) || answer.is_err(), "{answer:?}");
    assert!(told.cause().unwrap().to_string().contains("limit"), "{:?}", told.cause());
}
