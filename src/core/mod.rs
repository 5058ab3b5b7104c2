//! The table of channels and its views. A hook is given a view, the view holds the map, and the map
//! holds the hooks: the one import circle of the crate.

pub(crate) mod access;
pub(crate) mod action;
mod adding;
pub(crate) mod ages;
pub(crate) mod bandwidth;
pub(crate) mod buffer;
pub(crate) mod channel;
pub(crate) mod deadlines;
pub(crate) mod dispatcher;
pub(crate) mod drain;
pub(crate) mod foreground;
pub(crate) mod gather;
pub(crate) mod input;
pub(crate) mod lingering;
pub(crate) mod map;
pub(crate) mod numbers;
pub(crate) mod output;
pub(crate) mod partners;
pub(crate) mod shown;
pub(crate) mod slots;
pub(crate) mod time;
pub(crate) mod total;
pub(crate) mod wake;
pub(crate) mod wrapper;
