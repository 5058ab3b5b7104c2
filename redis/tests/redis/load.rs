//! Much at once.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::ChannelMap;
use dispatch_loop_redis::{Command, Error, Redis, Value};

use super::support::*;

#[derive(Default)]
struct Tally {
    called: u64,
    done: Vec<i64>,
    lost: u64,
    unsent: u64,
}

impl Tally {
    fn answered(&self) -> u64 {
        self.done.len() as u64 + self.lost + self.unsent
    }
}

/// Keep so many commands without an answer, as long as `more` says so.
fn keep_calling(map: &mut ChannelMap, redis: &Redis, tally: &Rc<RefCell<Tally>>, most: usize) {
    while redis.pending() < most {
        let to = tally.clone();
        tally.borrow_mut().called += 1;
        let answer = move |_: &mut ChannelMap, answer: Result<Value, Error>| {
            let mut tally = to.borrow_mut();
            match answer {
                Ok(number) => tally.done.push(number.as_int().unwrap()),
                Err(Error::Lost(_)) => tally.lost += 1,
                Err(Error::NotSent(_)) => tally.unsent += 1,
                Err(other) => panic!("{other}"),
            }
        };
        redis.call(map, ["INCR", "n"], answer).unwrap();
    }
}

/// Five times it is killed and comes back with what it has stored. Each command is answered once; what was answered
/// was done, and what was done was answered or is of unknown outcome.
#[test]
fn a_server_restarted_under_load_loses_no_answer() {
    let Some(mut server) = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]) else { return };
    let (mut map, redis, told) = client(&server.url());
    let tally = Rc::new(RefCell::new(Tally::default()));
    for round in 1..=5 {
        wait_ready(&mut map, &redis);
        let goal = tally.borrow().done.len() + 5_000;
        turn_until(&mut map, "answers", |map| {
            keep_calling(map, &redis, &tally, 1000);
            tally.borrow().done.len() >= goal
        });
        server.kill();
        turn_until(&mut map, "the loss", |map| {
            keep_calling(map, &redis, &tally, 1000);
            told.disconnected() >= round
        });
        server.begin();
    }
    redis.close(&mut map);
    let end = tally.clone();
    turn_until(&mut map, "the last answers", |_| end.borrow().answered() == end.borrow().called);
    let (mut map, redis, _) = client(&server.url());
    let stored = ask(&mut map, &redis, ["GET", "n"]).unwrap().as_int().unwrap() as u64;
    let tally = tally.borrow();
    assert!(tally.done.is_sorted_by(|one, next| one < next), "each is a command of its own, in order");
    let done = tally.done.len() as u64;
    assert!(
        (done..=done + tally.lost).contains(&stored),
        "{done} done, {} lost, {stored} stored",
        tally.lost
    );
    assert!(tally.lost > 0, "it was under load");
    assert!(*tally.done.last().unwrap() as u64 <= stored);
    println!("{} called, {done} done, {} lost, {stored} stored", tally.called, tally.lost);
}

/// The most memory that this process has had, in MiB (Linux).
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok()).unwrap_or(0) >> 10
}

#[test]
fn a_value_of_64_mib_goes_and_comes_to_a_slow_reader() {
    const SIZE: usize = 64 << 20;
    let Some(server) = Server::start(&[]) else { return };
    let (mut map, redis, _) = client(&server.url());
    let value: Vec<u8> = (0..SIZE).map(|i| (i / 251 + i) as u8).collect();
    let set = Command::new("SET").arg("large").arg(&value);
    assert_eq!(ask(&mut map, &redis, set).unwrap(), ok());
    let got = Rc::new(RefCell::new(None));
    let to = got.clone();
    let begun = Instant::now();
    redis
        .call(&mut map, ["GET", "large"], move |_, answer| *to.borrow_mut() = Some(answer.unwrap()))
        .unwrap();
    // It reads for a turn, and rests for two.
    let mut turns = 0u32;
    while got.borrow().is_none() {
        assert!(begun.elapsed() < DEADLINE);
        match turns % 64 {
            0 => redis.pause_reading(&mut map),
            2 => redis.resume_reading(&mut map),
            _ => {}
        }
        turns += 1;
        map.turn(Some(Duration::from_millis(1))).unwrap();
    }
    assert!(got.borrow().as_ref().unwrap().as_bytes() == Some(&value));
    println!("in {turns} turns, {:?}; {} MiB at most", begun.elapsed(), peak());
}

/// Answers that nobody reads fill the network and the server, not us; commands that are not taken fill our limit.
#[test]
fn a_paused_client_holds_the_server_back() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut map, redis, _) = client(&server.url());
    let value = vec![b'v'; 1 << 20];
    ask(&mut map, &redis, Command::new("SET").arg("v").arg(&value)).unwrap();
    redis.pause_reading(&mut map);
    let count = Rc::new(RefCell::new(0));
    for _ in 0..200 {
        let count = count.clone();
        redis
            .call(&mut map, ["GET", "v"], move |_, answer| {
                assert_eq!(answer.unwrap().as_bytes().unwrap().len(), 1 << 20);
                *count.borrow_mut() += 1;
            })
            .unwrap();
    }
    for _ in 0..50 {
        map.turn(Some(Duration::from_millis(2))).unwrap();
    }
    let came = map.channel(redis.token().unwrap()).unwrap().bytes_in();
    assert!(came < 1 << 20, "{came} bytes were read all the same");
    redis.resume_reading(&mut map);
    turn_until(&mut map, "all answers", |_| *count.borrow() == 200);
}
