//! What the server sends by itself.

use dispatch_loop_redis::{Protocol, Redis, Value};

use super::support::*;

#[test]
fn what_is_published_is_heard_until_it_is_unsubscribed() {
    let Some(server) = Server::start(&[]) else { return };
    for protocol in [Protocol::Resp3, Protocol::Resp2] {
        let (mut map, redis, told) = client_with(&server.url(), &options().with_protocol(protocol));
        let other = Redis::connect(&mut map, &server.url(), &options(), ()).unwrap();
        let counts: Results<Value> = Results::default();
        let count = || {
            let counts = counts.clone();
            move |_: &mut _, count: Result<Value, _>| counts.borrow_mut().push(count.unwrap())
        };
        // Answers that look like messages are none: no subscription is confirmed yet.
        redis.call(&mut map, ["DEL", "l"], |_, _| {}).unwrap();
        redis.call(&mut map, ["RPUSH", "l", "message", "one", "x"], |_, _| {}).unwrap();
        redis.call(&mut map, ["LRANGE", "l", "0", "-1"], count()).unwrap();
        redis.subscribe(&mut map, ["one", "two"], count()).unwrap();
        redis.psubscribe(&mut map, ["th*"], count()).unwrap();
        redis.ssubscribe(&mut map, ["shard"], count()).unwrap();
        turn_until(&mut map, "subscriptions", |_| counts.borrow().len() == 4);
        assert_eq!(counts.borrow()[0].as_array().unwrap().len(), 3);
        assert_eq!(counts.borrow()[1..], [Value::Int(2), Value::Int(3), Value::Int(1)]);
        for (channel, text) in [("one", "1"), ("none", "0"), ("two", "2"), ("three", "3")] {
            ask(&mut map, &other, ["PUBLISH", channel, text]).unwrap();
        }
        ask(&mut map, &other, ["SPUBLISH", "shard", "4"]).unwrap();
        let heard = [("one", "1"), ("two", "2"), ("three", "3"), ("shard", "4")];
        let heard = heard.map(|(channel, text)| (channel.to_owned(), text.to_owned()));
        turn_until(&mut map, "messages", |_| told.messages().len() == 4);
        assert_eq!(told.messages(), heard);
        // Other commands go on with RESP3, and are refused by the server with RESP2.
        assert_eq!(ask(&mut map, &redis, ["GET", "x"]).is_ok(), protocol == Protocol::Resp3);
        assert!(ask(&mut map, &redis, ["PING"]).is_ok());
        redis.unsubscribe(&mut map, ["one", "two"], count()).unwrap();
        redis.punsubscribe(&mut map, ["th*"], count()).unwrap();
        redis.sunsubscribe(&mut map, ["shard"], count()).unwrap();
        turn_until(&mut map, "the end of subscriptions", |_| counts.borrow().len() == 7);
        assert_eq!(ask(&mut map, &other, ["PUBLISH", "one", "1"]).unwrap(), Value::Int(0));
        let list = ask(&mut map, &redis, ["LRANGE", "l", "0", "-1"]).unwrap();
        assert_eq!(list.as_array().unwrap().len(), 3);
        assert_eq!(told.messages().len(), 4);
    }
}

#[test]
fn subscriptions_are_made_again_on_the_next_connection() {
    let Some(mut server) = Server::start(&[]) else { return };
    for protocol in [Protocol::Resp3, Protocol::Resp2] {
        let (mut map, redis, told) = client_with(&server.url(), &options().with_protocol(protocol));
        let other = Redis::connect(&mut map, &server.url(), &options(), ()).unwrap();
        redis.subscribe(&mut map, ["news", "gone"], |_, _| {}).unwrap();
        redis.unsubscribe(&mut map, ["gone"], |_, _| {}).unwrap();
        wait_ready(&mut map, &redis);
        server.kill();
        turn_until(&mut map, "the loss", |_| told.disconnected() > 0);
        server.begin();
        turn_until(&mut map, "a message", |map| {
            let _ = other.call(map, ["PUBLISH", "news", "again"], |_, _| {});
            !told.messages().is_empty()
        });
        assert_eq!(told.messages()[0], ("news".to_owned(), "again".to_owned()));
        assert_eq!(ask(&mut map, &other, ["PUBLISH", "gone", "x"]).unwrap(), Value::Int(0));
    }
}

#[test]
fn a_subscription_that_is_not_allowed_is_an_error_and_not_tried_again() {
    let user = ["--user", "deaf", "on", ">x", "~*", "+@all", "resetchannels", "&allowed"];
    let Some(server) = Server::start(&user) else { return };
    for protocol in [Protocol::Resp3, Protocol::Resp2] {
        let url = server.url().replace("//", "//deaf:x@");
        let (mut map, redis, told) = client_with(&url, &options().with_protocol(protocol));
        let codes: Results<Option<String>> = Results::default();
        for channel in ["allowed", "forbidden"] {
            let to = codes.clone();
            let answer = move |_: &mut _, answer: Result<Value, dispatch_loop_redis::Error>| {
                let code = answer.err().map(|error| error.server_code().unwrap().to_owned());
                to.borrow_mut().push(code);
            };
            redis.subscribe(&mut map, [channel], answer).unwrap();
        }
        turn_until(&mut map, "both answers", |_| codes.borrow().len() == 2);
        assert_eq!(codes.borrow()[..], [None, Some("NOPERM".to_owned())]);
        let other = Redis::connect(&mut map, &server.url(), &options(), ()).unwrap();
        ask(&mut map, &other, ["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
        turn_until(&mut map, "the next connection", |map| {
            let _ = other.call(map, ["PUBLISH", "allowed", "x"], |_, _| {});
            !told.messages().is_empty()
        });
        assert_eq!(told.connected(), 2);
    }
}

#[test]
fn tracked_keys_are_told_when_they_change() {
    let Some(server) = Server::start(&[]) else { return };
    let (mut map, redis, told) = client(&server.url());
    let other = Redis::connect(&mut map, &server.url(), &options(), ()).unwrap();
    ask(&mut map, &redis, ["CLIENT", "TRACKING", "ON"]).unwrap();
    ask(&mut map, &redis, ["GET", "k"]).unwrap();
    ask(&mut map, &other, ["SET", "k", "1"]).unwrap();
    let is = |event: &Event| matches!(event, Event::Push(push) if push.kind == "invalidate");
    turn_until(&mut map, "the news", |_| told.count(is) == 1);
}
