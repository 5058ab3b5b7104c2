//! How connections and clients end.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::{ChannelMap, DrainOptions, Reason};
use dispatch_loop_redis::{Cause, Command, Error, Handler, Redis, Value, Why};

use super::support::*;

type Answers = Results<Result<Value, Error>>;

fn call(map: &mut ChannelMap, redis: &Redis, command: impl Into<Command>, answers: &Answers) {
    let to = answers.clone();
    redis.call(map, command, move |_, answer| to.borrow_mut().push(answer)).unwrap();
}

#[test]
fn a_closed_client_answers_what_was_called_and_lets_run_return() {
    let Some(server) = Server::start(&[]) else { return };
    for is_ready in [false, true] {
        let (mut map, redis, told) = client(&server.url());
        if is_ready {
            wait_ready(&mut map, &redis);
        }
        let answers = Answers::default();
        for _ in 0..1000 {
            call(&mut map, &redis, ["INCR", "n"], &answers);
        }
        redis.close(&mut map);
        assert_eq!(redis.call(&mut map, ["PING"], |_, _| {}).unwrap_err().why, Why::Closed);
        dispatch_loop::run(&mut map).unwrap();
        assert_eq!(answers.borrow().iter().filter(|answer| answer.is_ok()).count(), 1000);
        assert!(matches!(told.gone(), Some(Cause::Closed)), "{:?}", told.0);
    }
    // One that has nothing to do.
    let (mut map, redis, told) = client(&server.url());
    redis.close(&mut map);
    dispatch_loop::run(&mut map).unwrap();
    assert!(told.gone().is_some());
}

/// The hook that tells of a failed attempt may be the place to give up.
#[test]
fn a_client_may_be_closed_when_it_is_told_of_a_loss() {
    struct Once;
    impl Handler for Once {
        fn disconnected(&mut self, map: &mut ChannelMap, redis: &Redis, _: &Cause) {
            redis.close(map);
        }
    }
    let mut map = ChannelMap::new().unwrap();
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    let redis = Redis::connect(&mut map, &nobody, &options(), Once).unwrap();
    let answers = Answers::default();
    call(&mut map, &redis, ["PING"], &answers);
    dispatch_loop::run(&mut map).unwrap();
    assert!(matches!(answers.borrow()[..], [Err(Error::NotSent(_))]));
}

#[test]
fn an_aborted_client_tells_what_was_sent_and_what_was_not() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut map, redis, told) = client(&server.url());
    let answers = Answers::default();
    call(&mut map, &redis, ["PING"], &answers);
    redis.abort(&mut map);
    assert!(answers.borrow().is_empty(), "nothing runs inside a call");
    dispatch_loop::run(&mut map).unwrap();
    assert!(matches!(answers.borrow()[..], [Err(Error::NotSent(Cause::Closed))]));
    assert!(matches!(told.gone(), Some(Cause::Closed)));

    let (mut map, redis, told) = client(&server.url());
    wait_ready(&mut map, &redis);
    let answers = Answers::default();
    call(&mut map, &redis, ["BLPOP", "nothing", "0"], &answers);
    redis.abort(&mut map);
    dispatch_loop::run(&mut map).unwrap();
    assert!(matches!(answers.borrow()[..], [Err(Error::Lost(Cause::Closed))]), "{answers:?}");
    assert!(answers.borrow()[0].as_ref().unwrap_err().is_outcome_unknown());
    assert!(told.gone().is_some());
}

/// A command that is called when the connection is about to end was not sent, and its outcome is known.
#[test]
fn what_is_called_while_the_connection_ends_was_not_sent() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut map, redis, told) = client(&server.url());
    wait_ready(&mut map, &redis);
    let answers = Answers::default();
    let (to, client) = (answers.clone(), redis.clone());
    redis
        .call(&mut map, ["PING"], move |map, _| {
            let token = client.token().unwrap();
            map.channel(token).unwrap().abort();
            call(map, &client, ["INCR", "n"], &to);
        })
        .unwrap();
    turn_until(&mut map, "the answer on the next connection", |_| answers.borrow().len() == 1);
    assert_eq!(*answers.borrow()[0].as_ref().unwrap(), Value::Int(1));
    assert_eq!(told.connected(), 2);
}

#[test]
fn without_a_server_commands_wait_or_are_refused() {
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    let quick = options().with_timeout(Duration::from_millis(200));
    let (mut map, redis, told) = client_with(&nobody, &quick);
    let answers = Answers::default();
    call(&mut map, &redis, ["PING"], &answers);
    turn_until(&mut map, "its time-out", |_| answers.borrow().len() == 1);
    assert!(matches!(answers.borrow()[..], [Err(Error::TimedOut { sent: false })]));
    assert!(told.disconnected() > 0 && told.gone().is_none());
    redis.close(&mut map);
    dispatch_loop::run(&mut map).unwrap();
    assert!(told.gone().is_some());

    let (mut map, redis, told) = client_with(&nobody, &options().with_keep_unsent(false));
    assert_eq!(redis.call(&mut map, ["PING"], |_, _| {}).unwrap_err().why, Why::NotConnected);
    drop((map, redis));
    assert!(matches!(told.gone(), Some(Cause::Connection(Reason::MapEnded))));

    let (mut map, redis, told) = client_with(&nobody, &options().with_max_attempts(3));
    let answers = Answers::default();
    call(&mut map, &redis, ["PING"], &answers);
    dispatch_loop::run(&mut map).unwrap();
    assert_eq!(told.disconnected(), 3);
    let Err(Error::NotSent(Cause::Connection(Reason::Error(error)))) = &answers.borrow()[0] else { panic!() };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let unusable = Redis::connect(&mut map, "redis://", &options(), ()).unwrap_err();
    assert_eq!(unusable.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn what_waits_is_sent_when_the_server_is_there() {
    let Some(mut server) = Server::start(&[]) else { return };
    server.kill();
    let (mut map, redis, told) = client(&server.url());
    let answers = Answers::default();
    for _ in 0..100 {
        call(&mut map, &redis, ["INCR", "n"], &answers);
    }
    turn_until(&mut map, "two attempts", |_| told.disconnected() >= 2);
    assert!(answers.borrow().is_empty());
    server.begin();
    turn_until(&mut map, "all answers", |_| answers.borrow().len() == 100);
    assert!(
        answers.borrow().iter().enumerate().all(|(i, n)| *n.as_ref().unwrap() == Value::Int(i as i64 + 1))
    );
}

#[test]
fn a_drain_waits_for_answers_and_leaves_none_out() {
    let Some(mut server) = Server::start(&[]) else { return };
    // Awaited.
    let (mut map, redis, told) = client(&server.url());
    wait_ready(&mut map, &redis);
    let answers = Answers::default();
    call(&mut map, &redis, ["BLPOP", "nothing", "0.3"], &answers);
    map.turn(Some(Duration::ZERO)).unwrap();
    map.drain(&DrainOptions::default());
    dispatch_loop::run(&mut map).unwrap();
    assert!(matches!(answers.borrow()[..], [Ok(Value::Null)]), "{answers:?}");
    assert!(told.gone().is_some());
    // In the background it is left alone, and ends with the map.
    let (mut map, redis, told) = client_with(&server.url(), &options().with_background(true));
    wait_ready(&mut map, &redis);
    map.drain(&DrainOptions::default());
    dispatch_loop::run(&mut map).unwrap();
    assert!(told.gone().is_none() && redis.is_ready());
    drop(map);
    assert!(told.gone().is_some());
    // Between two attempts.
    server.kill();
    let (mut map, redis, told) = client(&server.url());
    let answers = Answers::default();
    call(&mut map, &redis, ["PING"], &answers);
    turn_until(&mut map, "an attempt", |_| told.disconnected() > 0 && redis.token().is_none());
    map.drain(&DrainOptions::default());
    turn_until(&mut map, "the end", |_| told.gone().is_some());
    assert!(matches!(answers.borrow()[..], [Err(Error::NotSent(_))]));
}

#[test]
fn when_the_map_is_dropped_everybody_is_told() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut map, redis, told) = client(&server.url());
    wait_ready(&mut map, &redis);
    let answers = Answers::default();
    call(&mut map, &redis, ["BLPOP", "nothing", "0"], &answers);
    drop(map);
    assert!(matches!(answers.borrow()[..], [Err(Error::Lost(_))]), "{answers:?}");
    assert!(told.gone().is_some());
    // Nothing keeps it alive but us.
    assert_eq!(Rc::strong_count(&told.0), 1);
    drop(redis);
}

/// Also with a loop of references: a callback that holds the client.
#[test]
fn a_client_that_is_over_holds_nothing() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut map, redis, _) = client(&server.url());
    let held = Rc::new(());
    let (own, holds) = (redis.clone(), held.clone());
    redis.call(&mut map, ["PING"], move |map, _| (own.close(map), drop(holds)).0).unwrap();
    dispatch_loop::run(&mut map).unwrap();
    assert_eq!(Rc::strong_count(&held), 1);
    // And one whose map goes while it waits for the next attempt.
    let (mut map, redis, told) = client(&format!("redis://127.0.0.1:{}", free_port()));
    turn_until(&mut map, "an attempt", |_| told.disconnected() > 0);
    drop((map, redis));
    assert_eq!(Rc::strong_count(&told.0), 1);
}

#[test]
fn a_late_answer_is_not_taken_for_another() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut map, redis, told) = client(&server.url());
    wait_ready(&mut map, &redis);
    let answers = Answers::default();
    call(&mut map, &redis, ["ECHO", "first"], &answers);
    let slow = Command::from(["BLPOP", "nothing", "0.5"]).with_timeout(Duration::from_millis(100));
    call(&mut map, &redis, slow, &answers);
    call(&mut map, &redis, ["ECHO", "after"], &answers);
    turn_until(&mut map, "all", |_| answers.borrow().len() == 3);
    let answers = answers.borrow();
    assert!(matches!(&answers[1], Err(Error::TimedOut { sent: true })), "{answers:?}");
    assert_eq!(answers[2].as_ref().unwrap(), &bytes("after"));
    assert_eq!(told.connected(), 1, "a server that talks is not given up");
}

/// Neither a close nor a drain waits for an answer that nobody awaits any more.
#[test]
fn a_close_and_a_drain_are_done_when_the_last_command_has_timed_out() {
    let Some(server) = Server::start(&[]) else { return };
    for is_drain in [false, true] {
        let (mut map, redis, told) = client(&server.url());
        wait_ready(&mut map, &redis);
        let answers = Answers::default();
        let slow = Command::from(["BLPOP", "nothing", "0"]).with_timeout(Duration::from_millis(200));
        // Its answer comes after the other one was sent: the server is not silent.
        call(&mut map, &redis, ["PING"], &answers);
        call(&mut map, &redis, slow, &answers);
        match is_drain {
            true => map.drain(&DrainOptions::default()),
            false => redis.close(&mut map),
        }
        turn_until(&mut map, "the end", |_| told.gone().is_some());
        assert!(matches!(answers.borrow()[..], [Ok(_), Err(Error::TimedOut { sent: true })]), "{answers:?}");
    }
}

#[test]
fn a_full_client_refuses_and_says_when_there_is_room() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut map, redis, told) = client_with(&server.url(), &options().with_max_commands(100));
    for _ in 0..100 {
        redis.call(&mut map, ["PING"], |_, _| {}).unwrap();
    }
    let refused = redis.call(&mut map, ["ECHO", "later"], |_, _| unreachable!()).unwrap_err();
    assert_eq!(refused.why, Why::Full);
    let room = |told: &Told| told.count(|event| matches!(event, Event::Room));
    assert_eq!(room(&told), 0);
    turn_until(&mut map, "room", |_| room(&told) == 1);
    assert_eq!(ask(&mut map, &redis, refused.command).unwrap(), bytes("later"));

    let (mut map, redis, told) = client_with(&server.url(), &options().with_max_bytes(1 << 20));
    let part = vec![b'x'; 300 << 10];
    let set = |to: &str| Command::new("SET").arg(to).arg(&part);
    for to in ["a", "b", "c"] {
        redis.call(&mut map, set(to), |_, answer| assert_eq!(answer.unwrap(), ok())).unwrap();
    }
    assert_eq!(redis.call(&mut map, set("d"), |_, _| {}).unwrap_err().why, Why::Full);
    turn_until(&mut map, "room", |_| room(&told) == 1);
    turn_until(&mut map, "nothing to do", |_| redis.pending() == 0);
    // Alone, one of any size passes.
    let large = Command::new("SET").arg("e").arg(vec![b'y'; 2 << 20]);
    assert_eq!(ask(&mut map, &redis, large).unwrap(), ok());
    assert_eq!(room(&told), 1);
}

#[test]
fn while_reading_is_paused_no_answer_comes_and_no_time_passes() {
    let Some(server) = Server::start(&[]) else { return };
    let quick = options().with_timeout(Duration::from_millis(300));
    let (mut map, redis, _) = client_with(&server.url(), &quick);
    wait_ready(&mut map, &redis);
    let count = Rc::new(RefCell::new(0));
    for number in 0..1000 {
        let (count, redis_too) = (count.clone(), redis.clone());
        let answer = move |map: &mut ChannelMap, n: Result<Value, Error>| {
            assert_eq!(n.unwrap(), Value::Int(number + 1));
            *count.borrow_mut() += 1;
            if number == 500 {
                redis_too.pause_reading(map);
            }
        };
        redis.call(&mut map, ["INCR", "n"], answer).unwrap();
    }
    turn_until(&mut map, "the pause", |_| *count.borrow() == 501);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(600) {
        map.turn(Some(Duration::from_millis(50))).unwrap();
    }
    assert_eq!(*count.borrow(), 501);
    redis.resume_reading(&mut map);
    turn_until(&mut map, "the rest", |_| *count.borrow() == 1000);
}
