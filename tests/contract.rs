//! The contract, rule by rule: turns, hooks, reading and writing, ends, errors, time, names of channels.

// A release build has no `faults`: the tests that need it are left out, and their helpers unused.
#![cfg_attr(not(debug_assertions), allow(unused))]

// What a group leaves of a helper file is used by others. `warn`: this one uses all of it, so here it
// shows what nobody needs.
#[allow(dead_code)]
#[path = "support"]
mod support {
    pub mod dirs;
    pub mod echo;
    pub mod ends;
    #[warn(dead_code)]
    pub mod every_hook;
    pub mod heap;
    #[warn(dead_code)]
    pub mod logging;
    #[warn(dead_code)]
    pub mod opened;
    #[warn(dead_code)]
    pub mod peers;
    #[warn(dead_code)]
    pub mod process;
    #[warn(dead_code)]
    pub mod provoke;
    #[warn(dead_code)]
    pub mod recorder;
    pub mod records;
    pub mod through;
    pub mod turning;
    #[warn(dead_code)]
    pub mod waiting;
}

/// The sources of these tests are records.
const WITH: support::records::With = None;

mod contract {
    mod accept;
    #[cfg(debug_assertions)]
    mod after_faults;
    mod ages;
    mod answers;
    #[cfg(debug_assertions)]
    mod anything;
    mod asyncore;
    mod attacked_drain;
    mod attacked_limits;
    mod attacked_time;
    #[cfg(debug_assertions)]
    mod background;
    mod bandwidth;
    #[cfg(debug_assertions)]
    mod calls;
    mod close;
    mod closing;
    mod connect;
    mod deadlines;
    mod documents;
    mod drain;
    mod drops;
    mod errors;
    #[cfg(debug_assertions)]
    mod failed_listener;
    #[cfg(debug_assertions)]
    mod faults;
    mod handle_close;
    mod house;
    mod interest;
    mod interplay;
    mod keys;
    mod limits;
    mod limits_places;
    #[cfg(debug_assertions)]
    mod listeners_in_turn;
    mod loop_options;
    mod memory;
    mod model;
    #[cfg(debug_assertions)]
    mod no_room;
    mod numbers;
    mod panics;
    mod pins_errors;
    mod pins_lingering;
    mod pins_map;
    mod pins_output;
    mod pins_push;
    mod pins_source;
    mod pins_time;
    mod producers;
    mod queue;
    mod read;
    mod refused;
    mod regressions;
    mod relay;
    mod repeating;
    mod replaced;
    mod room;
    mod short_way;
    #[cfg(debug_assertions)]
    mod shortage;
    mod shown;
    mod suspension;
    mod swap;
    mod time;
    mod timeouts;
    #[cfg(feature = "layers")]
    mod timer_calls;
    mod unnoticed;
    mod way_out;
    mod world;
    #[cfg(feature = "layers")]
    mod world_chat;
    mod world_more;
    mod wrappers;
    mod write;
}
