//! Commands and answers.

use std::cell::RefCell;
use std::rc::Rc;

use dispatch_loop_redis::{Cause, Command, Error, Protocol, Value, Why};

use super::support::*;

#[test]
fn ten_thousand_commands_go_without_waiting_and_are_answered_in_order() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut map, redis, told) = client(&server.url());
    let answers: Results<i64> = Results::default();
    for _ in 0..10_000 {
        let answers = answers.clone();
        redis
            .call(&mut map, ["INCR", "n"], move |_, n| {
                answers.borrow_mut().push(n.unwrap().as_int().unwrap())
            })
            .unwrap();
    }
    assert_eq!(redis.pending(), 10_000);
    assert!(answers.borrow().is_empty(), "nothing runs inside a call");
    turn_until(&mut map, "all answers", |_| answers.borrow().len() == 10_000);
    assert!(answers.borrow().iter().copied().eq(1..=10_000));
    let Event::Connected(facts) = &told.0.borrow()[0] else { panic!("{told:?}", told = told.0) };
    assert_eq!(facts.protocol, Protocol::Resp3);
    assert!(facts.version.is_some() && facts.id.is_some());
    assert_eq!(facts.role.as_deref(), Some("master"));
}

#[test]
fn any_bytes_can_be_stored() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut map, redis, _) = client(&server.url());
    let all: Vec<u8> = (0..=255).collect();
    for value in [&all[..], b"", b"\r\n", b"*1\r\n$4\r\nPING\r\n", b"\0"] {
        let set = Command::new("SET").arg(&all).arg(value);
        assert_eq!(ask(&mut map, &redis, set).unwrap(), ok());
        assert_eq!(ask(&mut map, &redis, Command::new("GET").arg(&all)).unwrap(), bytes(value));
    }
    assert_eq!(ask(&mut map, &redis, ["GET", "nothing"]).unwrap(), Value::Null);
}

#[test]
fn every_type_of_an_answer_arrives() {
    let Some(server) = Server::start(&["--enable-debug-command", "yes"]) else { return };
    for protocol in [Protocol::Resp3, Protocol::Resp2] {
        let (mut map, redis, _) = client_with(&server.url(), &options().with_protocol(protocol));
        let mut protocol = |name: &str| ask(&mut map, &redis, ["DEBUG", "PROTOCOL", name]).unwrap();
        assert_eq!(protocol("string"), bytes("Hello World"));
        assert_eq!(protocol("integer"), Value::Int(12345));
        assert_eq!(protocol("double").as_double().map(f64::trunc), Some(3.0));
        assert_eq!(protocol("null"), Value::Null);
        assert_eq!(protocol("bignum").text(), "1234567999999999999999999999999999999");
        assert_eq!(protocol("verbatim"), bytes("This is a verbatim\nstring"));
        assert_eq!(protocol("true").as_int(), Some(1));
        let numbers = protocol("array").into_array().unwrap();
        assert_eq!(numbers, [0, 1, 2].map(Value::Int));
        let set: Vec<i64> = protocol("set").as_array().unwrap().iter().filter_map(Value::as_int).collect();
        assert_eq!(set, [0, 1, 2]);
        let map = protocol("map").into_pairs().unwrap();
        let keys: Vec<i64> = map.iter().filter_map(|(key, _)| key.as_int()).collect();
        assert_eq!(keys, [0, 1, 2], "in their order");
        assert!(!protocol("attrib").is_null());
    }
}

#[test]
fn errors_of_the_server_are_the_answers_of_their_commands() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut map, redis, _) = client(&server.url());
    ask(&mut map, &redis, ["RPUSH", "list", "a", "b"]).unwrap();
    let results: Results<Result<Value, Error>> = Results::default();
    for command in [["INCR", "list"], ["LLEN", "list"], ["NONSENSE", ""], ["GET", "list"], ["LLEN", "list"]] {
        let results = results.clone();
        redis.call(&mut map, command, move |_, result| results.borrow_mut().push(result)).unwrap();
    }
    turn_until(&mut map, "all answers", |_| results.borrow().len() == 5);
    let codes: Vec<_> = results
        .borrow()
        .iter()
        .map(|result| match result {
            Ok(value) => value.text().into_owned(),
            Err(error) => error.server_code().unwrap().to_owned(),
        })
        .collect();
    assert_eq!(codes, ["WRONGTYPE", "2", "ERR", "WRONGTYPE", "2"]);
    assert!(!results.borrow()[0].as_ref().unwrap_err().is_outcome_unknown());
}

#[test]
fn a_wrong_password_is_final_and_a_right_one_lets_in() {
    let args = ["--requirepass", "s3cret/@:", "--user", "app", "on", ">of app", "~*", "+@all"];
    let Some(server) = Server::start(&args) else { return };
    let url = |who: &str| server.url().replace("//", &format!("//{who}@"));
    for (url, code) in [
        (server.url(), "NOAUTH"),
        (url(":wrong"), "WRONGPASS"),
        (url("nobody:wrong"), "WRONGPASS"),
        (url(":s3cret%2F%40%3A") + "/999", "ERR"),
    ] {
        for protocol in [Protocol::Resp3, Protocol::Resp2] {
            let (mut map, redis, told) = client_with(&url, &options().with_protocol(protocol));
            let answer: Results<Error> = Results::default();
            let to = answer.clone();
            redis
                .call(&mut map, ["PING"], move |_, result| to.borrow_mut().push(result.unwrap_err()))
                .unwrap();
            if (protocol, code) == (Protocol::Resp2, "NOAUTH") {
                // There is no greeting that could tell.
                turn_until(&mut map, "an error", |_| answer.borrow().len() == 1);
                assert_eq!(answer.borrow()[0].server_code(), Some("NOAUTH"));
                continue;
            }
            dispatch_loop::run(&mut map).unwrap();
            assert!(matches!(told.gone(), Some(Cause::Refused(error)) if error.code() == code), "{url}");
            assert!(matches!(&answer.borrow()[..], [Error::NotSent(Cause::Refused(_))]));
            assert_eq!(redis.call(&mut map, ["PING"], |_, _| {}).unwrap_err().why, Why::Closed);
        }
    }
    for url in [url(":s3cret%2F%40%3A"), url("default:s3cret%2F%40%3A"), url("app:of%20app") + "/3"] {
        for protocol in [Protocol::Resp3, Protocol::Resp2] {
            let (mut map, redis, _) = client_with(&url, &options().with_protocol(protocol).with_name("me"));
            let info = ask(&mut map, &redis, ["CLIENT", "INFO"]).unwrap().text().into_owned();
            assert!(info.contains(" name=me "), "{info}");
            assert!(info.contains(&format!(" db={} ", if url.contains("app") { 3 } else { 0 })), "{info}");
        }
    }
}

#[test]
fn a_server_without_hello_is_spoken_to_in_resp2() {
    let Some(server) = Server::start(&["--rename-command", "HELLO", "", "--requirepass", "x"]) else {
        return;
    };
    let url = server.url().replace("//", "//:x@") + "/2";
    let (mut map, redis, told) = client(&url);
    assert_eq!(ask(&mut map, &redis, ["HSET", "h", "a", "1", "b", "2"]).unwrap(), Value::Int(2));
    let pairs = ask(&mut map, &redis, ["HGETALL", "h"]).unwrap().into_pairs().unwrap();
    assert_eq!(pairs, [(bytes("a"), bytes("1")), (bytes("b"), bytes("2"))]);
    assert_eq!(ask(&mut map, &redis, ["GET", "nothing"]).unwrap(), Value::Null);
    assert_eq!(ask(&mut map, &redis, ["BLPOP", "nothing", "0.01"]).unwrap(), Value::Null);
    let Event::Connected(facts) = &told.0.borrow()[0] else { panic!() };
    assert_eq!(facts.protocol, Protocol::Resp2);
}

#[test]
fn a_unix_socket_is_a_server_too() {
    let Some(server) = Server::start(&[]) else { return };
    assert!(exists(&server.socket()));
    let (mut map, redis, _) = client(&format!("redis+unix://{}?db=5", server.socket().display()));
    let info = ask(&mut map, &redis, ["CLIENT", "INFO"]).unwrap().text().into_owned();
    assert!(info.contains(" db=5 ") && info.contains("redis.sock"), "{info}");
}

#[test]
fn a_transaction_is_done_whole_or_not_at_all() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut map, redis, _) = client(&server.url());
    let answers: Results<Result<Value, Error>> = Results::default();
    let mut transact = |commands: Vec<Vec<&str>>| {
        let to = answers.clone();
        let commands = commands.iter().map(|command| Command::from(&command[..]));
        redis.transaction(&mut map, commands, move |_, answer| to.borrow_mut().push(answer)).unwrap();
    };
    transact(vec![vec!["INCR", "n"], vec!["INCR", "n"], vec!["LPUSH", "n", "x"], vec!["GET", "n"]]);
    transact(vec![vec!["INCR", "n"], vec!["NONSENSE"]]);
    transact(vec![]);
    assert_eq!(ask(&mut map, &redis, ["GET", "n"]).unwrap(), bytes("2"));
    let answers = answers.borrow();
    let Ok(Value::Array(values)) = &answers[0] else { panic!("{answers:?}") };
    assert!(
        matches!(&values[..], [Value::Int(1), Value::Int(2), Value::Error(e), Value::Bytes(_)] if e.code() == "WRONGTYPE")
    );
    let Err(Error::Server(error)) = &answers[1] else { panic!("{answers:?}") };
    assert!(error.text().contains("NONSENSE"), "which one: {error}");
    assert_eq!(answers[2].as_ref().unwrap(), &Value::Array(vec![]));
}

#[test]
fn a_callback_may_call_again_and_one_that_panics_harms_nobody() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut map, redis, told) = client(&server.url());
    wait_ready(&mut map, &redis);
    let (again, got) = (redis.clone(), Rc::new(RefCell::new(Vec::new())));
    let to = got.clone();
    redis.call(&mut map, ["SET", "a", "1"], |_, _| panic!("on purpose")).unwrap();
    redis
        .call(&mut map, ["INCR", "a"], move |map, n| {
            to.borrow_mut().push(n.unwrap());
            let to = to.clone();
            again.call(map, ["INCR", "a"], move |_, n| to.borrow_mut().push(n.unwrap())).unwrap();
        })
        .unwrap();
    turn_until(&mut map, "both answers", |_| got.borrow().len() == 2);
    assert_eq!(got.borrow()[..], [Value::Int(2), Value::Int(3)]);
    assert_eq!(told.connected(), 1);
}

#[test]
fn commands_that_would_confuse_the_answers_are_refused() {
    let (mut map, redis, _) = client("redis://127.0.0.1:1");
    for command in [
        &["subscribe", "x"][..],
        &["PUNSUBSCRIBE"],
        &["MULTI"],
        &["exec"],
        &["Watch", "k"],
        &["SELECT", "1"],
        &["HELLO", "3"],
        &["CLIENT", "reply", "OFF"],
        &["MONITOR"],
        &["REPLCONF", "ACK", "0"],
        &["QUIT"],
        // The server does not even answer it, and the next answer would be taken for its own.
        &[],
    ] {
        let refused = redis.call(&mut map, command, |_, _| unreachable!()).unwrap_err();
        assert!(matches!(refused.why, Why::NotHere(_)), "{command:?}");
        let refused = redis.transaction(&mut map, [command], |_, _| unreachable!()).unwrap_err();
        assert!(matches!(refused.why, Why::NotHere(_)), "{command:?}");
    }
    redis.call(&mut map, ["CLIENT", "ID"], |_, _| {}).unwrap();
    assert_eq!(redis.pending(), 1);
}

#[test]
fn streams_are_read_while_they_are_written() {
    let Some(server) = Server::start(&[]) else { return };
    for protocol in [Protocol::Resp3, Protocol::Resp2] {
        let (mut map, reader, _) = client_with(&server.url(), &options().with_protocol(protocol));
        let writer = dispatch_loop_redis::Redis::connect(&mut map, &server.url(), &options(), ()).unwrap();
        ask(&mut map, &writer, ["DEL", "s"]).unwrap();
        let got: Results<String> = Results::default();
        for round in 0..3 {
            let to = got.clone();
            let last = format!("{round}-0");
            let read = Command::from(["XREAD", "BLOCK", "0", "STREAMS", "s", &last]).with_timeout(None);
            reader
                .call(&mut map, read, move |_, answer| {
                    let streams = answer.unwrap();
                    // A map with RESP3, an array of pairs with RESP2.
                    let entries = match &streams {
                        Value::Map(pairs) => &pairs[0].1,
                        Value::Array(pairs) => &pairs[0].as_array().unwrap()[1],
                        other => panic!("{other:?}"),
                    };
                    let fields = &entries.as_array().unwrap()[0].as_array().unwrap()[1];
                    to.borrow_mut().push(fields.get("text").unwrap().text().into_owned());
                })
                .unwrap();
            let id = format!("{}-0", round + 1);
            ask(&mut map, &writer, ["XADD", "s", &id, "text", &format!("line {round}")]).unwrap();
            turn_until(&mut map, "the entry", |_| got.borrow().len() == round + 1);
        }
        assert_eq!(got.borrow()[..], ["line 0", "line 1", "line 2"]);
    }
}
