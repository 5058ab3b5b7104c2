//! Connections for data: a door through which one may come, and what goes over it.

use std::io::{self, Read};
use std::net::IpAddr;
use std::time::Duration;

use dispatch_loop::chat::ChatDispatcher;
use dispatch_loop::{Address, Channel, Dispatcher, Eof, Handle, Reason, Socket, producers};

use crate::control::Control;
use crate::site::Upload;

/// How long nothing may move.
const IDLE: Duration = Duration::from_secs(60);

pub enum Job {
    Send(Box<dyn Read + Send>),
    Take(Upload),
}

/// A listener for one connection, from one address.
pub struct Door {
    control: Handle<ChatDispatcher<Control>>,
    peer: IpAddr,
    data: Option<Handle<Data>>,
}

impl Door {
    pub fn new(control: Handle<ChatDispatcher<Control>>, peer: IpAddr) -> Door {
        Door { control, peer, data: None }
    }
}

impl Dispatcher for Door {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, peer: Address) -> io::Result<()> {
        if self.data.is_some() || peer.ip().map(|peer| peer.ip().to_canonical()) != Some(self.peer) {
            log::info!("{peer} has connected for the data of {}, and is turned away", self.peer);
            return Ok(());
        }
        self.data =
            Some(ch.map_mut().add(socket, Data { control: self.control, upload: None, result: None })?);
        ch.close();
        Ok(())
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, _: &Reason) {
        let (token, data) = (ch.token(), self.data);
        let told = ch.map_mut().with(self.control, |control, ch| {
            control.with(ch, |control, ch| control.shut_door(ch, token, data))
        });
        if let (Err(_), Some(Ok(mut data))) = (told, data.map(|data| ch.map_mut().channel(data))) {
            data.abort(); // whose it is has gone
        }
    }
}

/// The connection that has come in.
pub struct Data {
    control: Handle<ChatDispatcher<Control>>,
    /// What it is written to, but while a thread writes.
    upload: Option<Upload>,
    result: Option<io::Result<()>>,
}

impl Data {
    pub fn begin(&mut self, ch: &mut Channel<'_>, job: Job) -> io::Result<()> {
        match job {
            Job::Send(reader) => {
                ch.push_producer(producers::from_reader(reader))?;
                self.result = Some(Ok(()));
                ch.close(); // when all of it has been sent
            }
            Job::Take(upload) => {
                self.upload = Some(upload);
                ch.set_busy(true);
                ch.resume_reading();
            }
        }
        Ok(())
    }
}

impl Dispatcher for Data {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_timeout(Some(IDLE));
        if self.upload.is_none() {
            ch.pause_reading(); // until it is known what for
        }
        Ok(())
    }

    /// No more is read than the disk takes.
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            let Some(mut upload) = self.upload.take() else { return Ok(()) };
            let data = data.to_vec();
            ch.pause_reading();
            let work = move || upload.write(&data).map(|()| upload);
            ch.spawn_blocking_with(work, |me: &mut Data, ch, upload| {
                match upload {
                    Ok(upload) => me.upload = Some(upload),
                    Err(error) => {
                        me.result = Some(Err(error));
                        ch.abort();
                    }
                }
                ch.resume_reading();
                Ok(())
            })
        })
    }

    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        let Some(upload) = self.upload.take() else { return Ok(Eof::Close) };
        ch.spawn_blocking_with(
            move || upload.finish(),
            |me: &mut Data, ch, result| {
                me.result = Some(result);
                ch.close();
                Ok(())
            },
        )?;
        Ok(Eof::KeepWriting)
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        let result = match self.result.take() {
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(())) if matches!(reason, Reason::Closed | Reason::EndOfStream) => Ok(()),
            _ => Err(format!("the connection has ended: {reason}")),
        };
        let token = ch.token();
        // Unless the client itself has gone.
        let _ = ch.map_mut().with(self.control, |control, ch| {
            control.with(ch, |control, ch| control.data_ended(ch, token, result))
        });
    }
}
