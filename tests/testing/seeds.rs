//! Seeds vary what happens, name themselves when a test fails, and can be replayed.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Duration;

use dispatch_loop::{run, testing};

use crate::support::recorder::{Log, Recorder};

/// What happens to three channels, with all their cuts.
fn story(seed: u64) -> Vec<String> {
    let log = Log::new();
    let mut map = testing::map_with_seed(seed).unwrap();
    for name in ["a", "b", "c"] {
        let told = log.clone();
        let recorder = Recorder::new(name, &log).on("read", move |ch| {
            ch.read_with(|ch, data| {
                told.add(format!("{name} got {}", data.escape_ascii()));
                ch.push(data)
            })
        });
        let (_, peer) = testing::add(&mut map, recorder).unwrap();
        peer.send("hello").send("world").wait(Duration::from_millis(map.random() % 100)).send("!").fin();
    }
    run(&mut map).unwrap();
    log.events()
}

#[test]
fn the_same_seed_tells_the_same_story_and_others_tell_others() {
    let stories: Vec<_> = (0..50).map(story).collect();
    assert_eq!(stories, (0..50).map(story).collect::<Vec<_>>());
    let different: HashSet<_> = stories.iter().collect();
    assert!(different.len() > 45, "{}", different.len());
    let cut = |story: &Vec<String>| story.iter().any(|event| event == "a got hel");
    let merged = |story: &Vec<String>| story.iter().any(|event| event == "a got helloworld");
    let last_first =
        |story: &Vec<String>| story.iter().find(|event| event.contains("got")).unwrap().starts_with('c');
    for seen in [cut, merged, last_first] as [fn(&Vec<String>) -> bool; 3] {
        let times = stories.iter().filter(|story| seen(story)).count();
        assert!((1..40).contains(&times), "{times}");
    }
}

#[test]
fn without_a_seed_nothing_varies() {
    let log = Log::new();
    let mut map = testing::map().unwrap();
    for name in ["a", "b"] {
        let (_, peer) = testing::add(&mut map, Recorder::new(name, &log)).unwrap();
        peer.send("hello").send("world").fin();
    }
    run(&mut map).unwrap();
    let reads = ["a read", "b read", "a read", "b read"];
    assert_eq!(log.events()[2..6], reads.map(str::to_owned));
}

#[test]
fn a_failure_names_its_seed() {
    let fails = |with: fn(u64) -> std::io::Result<()>| {
        let failed = catch_unwind(AssertUnwindSafe(|| testing::seeds(0..100, with))).unwrap_err();
        failed.downcast_ref::<String>().unwrap().clone()
    };
    let text = fails(|seed| {
        assert!(seed < 17, "on purpose");
        Ok(())
    });
    assert_eq!(text, "with seed 17 the test fails (DISPATCH_LOOP_SEED=17 runs this one alone): on purpose");
    let text = fails(|seed| match seed {
        3 => Err(std::io::ErrorKind::NotFound.into()),
        _ => Ok(()),
    });
    assert!(text.starts_with("with seed 3 ") && text.ends_with(": entity not found"), "{text}");
}

/// Run by the test below, in a process with the variable set.
#[test]
#[ignore = "a part of another test"]
fn prints_its_seeds() {
    testing::seeds(0..3, |seed| {
        println!("<{seed}>");
        Ok(())
    });
}

#[test]
fn a_seed_in_the_environment_is_run_alone() {
    let ran = |seed: Option<&str>| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "--nocapture", "testing::seeds::prints_its_seeds"]);
        command.env_remove("DISPATCH_LOOP_SEED");
        seed.map(|seed| command.env("DISPATCH_LOOP_SEED", seed));
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let seeds = text.split('<').skip(1).map(|rest| rest.split('>').next().unwrap().to_owned());
        (seeds.collect::<Vec<_>>(), output.status.success())
    };
    assert_eq!(ran(None), (vec!["0".into(), "1".into(), "2".into()], true));
    assert_eq!(ran(Some("4711")), (vec!["4711".into()], true));
    assert_eq!(ran(Some("many")), (vec![], false));
}

/// Jitter is no exception; and what one map leaves behind is not another one's.
#[test]
fn random_numbers_follow_the_seed_while_a_map_for_testing_lives() {
    let first = |seed| testing::map_with_seed(seed).unwrap().random();
    assert_eq!(first(1), first(1));
    assert_ne!(first(1), first(2));
    let map = testing::map_with_seed(1).unwrap();
    drop(testing::map_with_seed(2).unwrap());
    map.random();
    let real = dispatch_loop::ChannelMap::new().unwrap();
    let (once, then) = (map.random(), map.random());
    drop(map);
    assert_ne!((once, then), (real.random(), real.random()));
}
