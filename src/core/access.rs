//! Reaching a channel of a map, or the dispatcher behind a handle.

use std::any::Any;

use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::error::LookupError;
use crate::token::{Handle, Token};

impl ChannelMap {
    /// The view of any channel, as its own hooks have it.
    ///
    /// # Errors
    /// [`LookupError::Gone`]; if a hook returns it with `?`, it is logged and ends nothing.
    pub fn channel(&mut self, token: impl Into<Token>) -> Result<Channel<'_>, LookupError> {
        let token = token.into();
        self.keep_time();
        match self.touch(token) {
            true => Ok(Channel::foreign(self, token)),
            false => Err(LookupError::Gone(token)),
        }
    }

    /// The dispatcher behind a handle.
    ///
    /// # Errors
    /// It is gone, has another type, or one of its hooks is running.
    pub fn get<T: Dispatcher>(&self, handle: Handle<T>) -> Result<&T, LookupError> {
        let token = handle.token();
        let seat = self.slots.get(token).ok_or(LookupError::Gone(token))?;
        let dispatcher = seat.dispatcher.as_deref().ok_or(LookupError::Running(token))?;
        (dispatcher as &dyn Any).downcast_ref().ok_or(LookupError::OtherType(token))
    }

    /// As [`get`](ChannelMap::get), mutably; `readable` and `writable` are asked afterwards.
    ///
    /// # Errors
    /// As [`get`](ChannelMap::get).
    pub fn get_mut<T: Dispatcher>(&mut self, handle: Handle<T>) -> Result<&mut T, LookupError> {
        let token = handle.token();
        self.touch(token);
        let seat = self.slots.get_mut(token).ok_or(LookupError::Gone(token))?;
        let dispatcher = seat.dispatcher.as_deref_mut().ok_or(LookupError::Running(token))?;
        (dispatcher as &mut dyn Any).downcast_mut().ok_or(LookupError::OtherType(token))
    }
}
