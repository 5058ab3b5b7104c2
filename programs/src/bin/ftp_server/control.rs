//! What a client says, and what it is answered.

use std::ffi::{OsStr, OsString};
use std::io::{self, Cursor};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
use dispatch_loop::{Deadlines, Handle, OnError, Reason, Token};

use crate::common;
use crate::site::{Entry, Site};
use crate::transfer::{Data, Door, Job};

/// The longest command, and how long one may take to come.
const LINE: usize = 8 * 1024;
const COMMAND: Duration = Duration::from_secs(60);
/// How long a client may take to connect for its data.
const CONNECT: Duration = Duration::from_secs(30);

pub struct Control {
    site: Arc<Site>,
    user: Option<bool>,
    is_in: bool,
    /// The folder that it is in.
    folder: Vec<OsString>,
    /// From where the next file is sent, and what is to be renamed.
    offset: u64,
    from: Option<Vec<OsString>>,
    /// Where it may connect, what has come there, and what is to be done with that once it has.
    door: Option<Token>,
    data: Option<Handle<Data>>,
    job: Option<Job>,
    is_transferring: bool,
    is_aborting: bool,
}

/// What the disk was asked for.
enum Done {
    Say(String),
    Enter(Vec<OsString>),
    Rename(Vec<OsString>),
    Transfer(Job),
}

impl Chat for Control {
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        ch.channel_mut().set_auto_pause(true);
        ch.set_input_limit(LINE);
        ch.set_deadlines(&Deadlines::default().with_message(COMMAND));
        say(ch, "220 files for anonymous")
    }

    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, line: &[u8]) -> io::Result<()> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Of Telnet, which may come before ABOR.
        let line = &line[line.iter().take_while(|byte| **byte >= 0xf0).count()..];
        let (verb, rest) = line.split_at(line.iter().position(|byte| *byte == b' ').unwrap_or(line.len()));
        let rest = rest.strip_prefix(b" ").unwrap_or(rest);
        match std::str::from_utf8(verb) {
            _ if line.iter().any(u8::is_ascii_control) => say(ch, "501 a control character"),
            Ok(verb) => self.command(ch, &verb.to_ascii_uppercase(), rest),
            Err(_) => say(ch, "500 what?"),
        }
    }

    fn handle_overlong(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        say(ch, "500 that line is too long")?;
        ch.close();
        Ok(())
    }

    /// Nobody talks during a transfer, which has a time of its own.
    fn handle_timeout(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        if !self.is_transferring {
            say(ch, "421 nothing was said for too long")?;
            ch.close();
        }
        Ok(())
    }

    fn handle_error(&mut self, ch: &mut ChatChannel<'_>, error: &io::Error) -> OnError {
        log::info!("channel {}: {error}", ch.token());
        OnError::End
    }

    fn handle_close(&mut self, ch: &mut ChatChannel<'_>, reason: &Reason) {
        common::disconnected(ch.channel(), reason);
        self.shut(ch);
    }
}

impl Control {
    pub fn new(site: Arc<Site>) -> Control {
        Control {
            site,
            user: None,
            is_in: false,
            folder: Vec::new(),
            offset: 0,
            from: None,
            door: None,
            data: None,
            job: None,
            is_transferring: false,
            is_aborting: false,
        }
    }

    fn command(&mut self, ch: &mut ChatChannel<'_>, verb: &str, rest: &[u8]) -> io::Result<()> {
        let (offset, from) = (self.offset, self.from.take());
        let path = self.path(rest);
        match verb {
            "QUIT" => {
                say(ch, "221 goodbye")?;
                ch.close();
                Ok(())
            }
            "NOOP" => say(ch, "200 nothing done"),
            "ABOR" if self.is_transferring => {
                self.is_aborting = true;
                if self.data.is_none() {
                    self.finished(ch, Err("it was aborted".to_owned()))?;
                }
                self.shut(ch);
                Ok(())
            }
            "ABOR" => {
                self.shut(ch);
                say(ch, "226 nothing is under way")
            }
            _ if self.is_transferring => say(ch, "450 a transfer is under way"),
            "USER" => {
                (self.user, self.is_in) =
                    (Some([&b"anonymous"[..], b"ftp"].contains(&&*rest.to_ascii_lowercase())), false);
                say(ch, "331 any password will do")
            }
            "PASS" => {
                self.is_in = self.user.take().unwrap_or(false);
                say(ch, if self.is_in { "230 welcome" } else { "530 only anonymous may come in" })
            }
            "SYST" => say(ch, "215 UNIX Type: L8"),
            "FEAT" => say(
                ch,
                "211-more:\r\n EPSV\r\n MDTM\r\n MLST type*;size*;modify*;\r\n REST STREAM\r\n SIZE\r\n TVFS\r\n UTF8\r\n211 end",
            ),
            "OPTS" => say(ch, "200 as you like"),
            _ if !self.is_in => say(ch, "530 USER and PASS come first"),
            "TYPE" if matches!(rest.first(), Some(b'A' | b'a' | b'I' | b'i' | b'L')) => {
                say(ch, "200 every byte as it is")
            }
            "MODE" if rest == b"S" => say(ch, "200 stream"),
            "STRU" if rest == b"F" => say(ch, "200 files"),
            "TYPE" | "MODE" | "STRU" => say(ch, "504 not that one"),
            "PWD" | "XPWD" => say(ch, format!("257 {} is where you are", quoted(&self.folder))),
            "CWD" | "XCWD" => self.ask(ch, move |site| site.folder(&path).map(|_| Done::Enter(path))),
            "CDUP" | "XCUP" => {
                self.folder.pop();
                say(ch, "250 there")
            }
            "PORT" | "EPRT" => say(ch, "502 transfers are passive: PASV or EPSV"),
            "PASV" | "EPSV" => self.listen(ch, verb, rest),
            "REST" => match std::str::from_utf8(rest).ok().and_then(|rest| rest.parse().ok()) {
                Some(offset) => {
                    self.offset = offset;
                    say(ch, format!("350 from byte {offset}"))
                }
                None => say(ch, "501 REST BYTES"),
            },
            "SIZE" => self.ask(ch, move |site| match site.entry(&path)? {
                Entry { is_folder: false, size, .. } => Ok(Done::Say(format!("213 {size}"))),
                _ => Err(io::ErrorKind::IsADirectory.into()),
            }),
            "MDTM" => {
                self.ask(ch, move |site| Ok(Done::Say(format!("213 {}", site.entry(&path)?.modified()))))
            }
            "MLST" => self.ask(ch, move |site| {
                let entry = site.entry(&path)?;
                Ok(Done::Say(format!("250-it is\r\n {} {}\r\n250 end", entry.facts(), shown(&path))))
            }),
            "STOR" | "APPE" | "DELE" | "MKD" | "XMKD" | "RMD" | "XRMD" | "RNFR" | "RNTO"
                if !self.site.may_write =>
            {
                say(ch, "550 nothing can be changed here")
            }
            "LIST" | "NLST" | "MLSD" | "RETR" | "STOR" | "APPE"
                if self.door.is_none() && self.data.is_none() =>
            {
                say(ch, "425 PASV or EPSV comes first")
            }
            "LIST" | "NLST" | "MLSD" => {
                let line = match verb {
                    "LIST" => Entry::long,
                    "NLST" => Entry::name,
                    _ => Entry::machine,
                };
                // Options are those of `ls`, which there is none of.
                let path = if rest.starts_with(b"-") { self.folder.clone() } else { path };
                self.ask(ch, move |site| {
                    let lines = site
                        .list(&path)?
                        .iter()
                        .flat_map(|entry| [line(entry), b"\r\n".to_vec()].concat())
                        .collect();
                    Ok(Done::Transfer(Job::Send(Box::new(Cursor::<Vec<u8>>::new(lines)))))
                })
            }
            "RETR" => {
                self.ask(ch, move |site| Ok(Done::Transfer(Job::Send(Box::new(site.open(&path, offset)?)))))
            }
            "STOR" | "APPE" if offset > 0 => say(ch, "554 a file is stored from its start"),
            "STOR" => self.ask(ch, move |site| Ok(Done::Transfer(Job::Take(site.store(&path)?)))),
            "APPE" => self.ask(ch, move |site| Ok(Done::Transfer(Job::Take(site.append(&path)?)))),
            "DELE" => self.ask(ch, move |site| site.delete(&path).map(|()| Done::Say("250 gone".to_owned()))),
            "RMD" | "XRMD" => {
                self.ask(ch, move |site| site.remove_folder(&path).map(|()| Done::Say("250 gone".to_owned())))
            }
            "MKD" | "XMKD" => self.ask(ch, move |site| {
                site.make_folder(&path).map(|()| Done::Say(format!("257 {}", quoted(&path))))
            }),
            "RNFR" => self.ask(ch, move |site| site.entry(&path).map(|_| Done::Rename(path))),
            "RNTO" => match from {
                Some(from) => self.ask(ch, move |site| {
                    site.rename(&from, &path).map(|()| Done::Say("250 renamed".to_owned()))
                }),
                None => say(ch, "503 RNFR comes first"),
            },
            _ => say(ch, "502 what?"),
        }
    }

    /// Have a thread ask the disk. The commands behind this one wait for what it finds.
    fn ask<F>(&mut self, ch: &mut ChatChannel<'_>, work: F) -> io::Result<()>
    where
        F: FnOnce(&Site) -> io::Result<Done> + Send + 'static,
    {
        let site = self.site.clone();
        ch.pause_reading();
        let asked = ch.channel_mut().spawn_blocking_with(
            move || work(&site),
            |control: &mut ChatDispatcher<Control>, ch, done| {
                control.with(ch, |control, ch| control.done(ch, done))
            },
        );
        asked.or_else(|error| self.done(ch, Err(error)))
    }

    fn done(&mut self, ch: &mut ChatChannel<'_>, done: io::Result<Done>) -> io::Result<()> {
        ch.resume_reading();
        match done {
            Err(error) => say(ch, format!("550 {error}")),
            Ok(Done::Say(text)) => say(ch, text),
            Ok(Done::Enter(folder)) => {
                self.folder = folder;
                say(ch, "250 there")
            }
            Ok(Done::Rename(from)) => {
                self.from = Some(from);
                say(ch, "350 and to what?")
            }
            // The door was shut meanwhile.
            Ok(Done::Transfer(_)) if self.door.is_none() && self.data.is_none() => {
                say(ch, "425 nobody has connected")
            }
            Ok(Done::Transfer(job)) => {
                (self.is_transferring, self.job) = (true, Some(job));
                ch.channel_mut().set_busy(true);
                say(ch, "150 here it comes")?;
                self.begin(ch)
            }
        }
    }

    /// Open a door for the data.
    fn listen(&mut self, ch: &mut ChatChannel<'_>, verb: &str, rest: &[u8]) -> io::Result<()> {
        self.shut(ch);
        let ip = |address: io::Result<dispatch_loop::Address>| address.ok().and_then(|address| address.ip());
        let (near, far) = (ip(ch.channel().local_addr()), ip(ch.peer_addr()));
        let (Some(near), Some(far)) = (near, far) else { return say(ch, "425 there is no address for that") };
        let near = near.ip().to_canonical();
        let v4 = match near {
            IpAddr::V4(v4) => Some(v4.octets()),
            IpAddr::V6(_) if verb == "PASV" => return say(ch, "522 EPSV for this network"),
            IpAddr::V6(_) => None,
        };
        let known = [&b""[..], if v4.is_some() { b"1" } else { b"2" }, b"ALL"];
        if verb == "EPSV" && !known.contains(&rest) {
            return say(ch, "522 not that network");
        }
        let control = ch.token().typed();
        let door = Door::new(control, far.ip().to_canonical());
        let opened = ch.map_mut().listen(SocketAddr::new(near, 0), door).and_then(|door| {
            let mut ch = ch.map_mut().channel(door)?;
            ch.call_later(CONNECT, |ch| {
                ch.close();
                Ok(())
            });
            Ok((door.token(), ch.local_addr()?.ip().map_or(0, |address| address.port())))
        });
        let (door, port) = match opened {
            Ok(opened) => opened,
            Err(error) => return say(ch, format!("425 {error}")),
        };
        self.door = Some(door);
        match v4 {
            Some([a, b, c, d]) if verb == "PASV" => {
                say(ch, format!("227 connect to ({a},{b},{c},{d},{},{})", port >> 8, port & 0xff))
            }
            _ => say(ch, format!("229 connect (|||{port}|)")),
        }
    }

    /// Forget what was opened for data; its own end tells the client.
    fn shut(&mut self, ch: &mut ChatChannel<'_>) {
        for token in self.door.take().into_iter().chain(self.data.take().map(|data| data.token())) {
            if let Ok(mut ch) = ch.map_mut().channel(token) {
                ch.abort();
            }
        }
    }

    /// The door is shut; perhaps somebody has come in.
    pub fn shut_door(
        &mut self,
        ch: &mut ChatChannel<'_>,
        door: Token,
        data: Option<Handle<Data>>,
    ) -> io::Result<()> {
        if self.door != Some(door) {
            // It was shut from here, too late for who had come in.
            if let Some(Ok(mut data)) = data.map(|data| ch.map_mut().channel(data)) {
                data.abort();
            }
            return Ok(());
        }
        (self.door, self.data) = (None, data);
        match self.data {
            Some(_) => self.begin(ch),
            None if self.is_transferring => self.finished(ch, Err("nobody has connected".to_owned())),
            None => Ok(()),
        }
    }

    /// If there is both somebody and something to do.
    fn begin(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        let Some(data) = self.data else { return Ok(()) };
        let Some(job) = self.job.take() else { return Ok(()) };
        ch.map_mut().with(data, |data, ch| data.begin(ch, job))
    }

    /// A connection for data has ended.
    pub fn data_ended(
        &mut self,
        ch: &mut ChatChannel<'_>,
        token: Token,
        result: Result<(), String>,
    ) -> io::Result<()> {
        if self.data.is_none_or(|data| data.token() == token) && self.is_transferring {
            self.finished(ch, result)?;
        }
        self.data = self.data.filter(|data| data.token() != token);
        Ok(())
    }

    fn finished(&mut self, ch: &mut ChatChannel<'_>, result: Result<(), String>) -> io::Result<()> {
        (self.is_transferring, self.job, self.offset) = (false, None, 0);
        ch.channel_mut().set_busy(false);
        match result {
            Ok(()) => say(ch, "226 that was all")?,
            Err(why) => say(ch, format!("426 {why}"))?,
        }
        if std::mem::take(&mut self.is_aborting) {
            say(ch, "226 aborted")?;
        }
        Ok(())
    }

    /// Names below the root.
    fn path(&self, text: &[u8]) -> Vec<OsString> {
        let mut path = if text.starts_with(b"/") { Vec::new() } else { self.folder.clone() };
        for name in text.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => drop(path.pop()),
                name => path.push(OsStr::from_bytes(name).to_owned()),
            }
        }
        path
    }
}

fn say(ch: &mut ChatChannel<'_>, line: impl AsRef<str>) -> io::Result<()> {
    if ch.channel().is_closing() {
        return Ok(()); // of a transfer whose client has gone
    }
    ch.push(format!("{}\r\n", line.as_ref()).as_bytes())
}

fn shown(path: &[OsString]) -> String {
    let names = path.iter().map(|name| name.to_string_lossy());
    format!("/{}", names.collect::<Vec<_>>().join("/"))
}

fn quoted(path: &[OsString]) -> String {
    format!("\"{}\"", shown(path).replace('"', "\"\""))
}
