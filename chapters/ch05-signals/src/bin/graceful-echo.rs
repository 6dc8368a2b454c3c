// ANCHOR: all
// ANCHOR: about
//! The echo server of chapter 3 with what a service needs besides: it ends gracefully,
//! re-reads its settings, and tells its counters, each on a signal.
//!
//! SIGTERM or SIGINT: no more newcomers; the clients may finish, until the deadline. A second
//! one: now. SIGHUP: read the settings file again. SIGUSR1: print the counters.
#![cfg_attr(not(unix), allow(unused))]
// ANCHOR_END: about

#[cfg(unix)]
use std::os::fd::IntoRawFd;
use std::{
    cell::{Cell, RefCell},
    fs,
    io::{self, ErrorKind, PipeReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    rc::Rc,
    sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst},
    time::Duration,
};

use anyhow::Context;
use ch03_reactor::{Handler, Interest, Reactor, Token};
use clap::Parser;
#[cfg(unix)]
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, Signal::*, sigaction},
};
use serde::Deserialize;
use socket2::SockRef;

// ANCHOR: signals
const BUFFER_SIZE: usize = 64 * 1024;

#[cfg(unix)]
const SIGNALS: [Signal; 4] = [SIGHUP, SIGUSR1, SIGTERM, SIGINT];
// ANCHOR_END: signals

// ANCHOR: args
/// Echo, and end gracefully: drain on SIGTERM, reload on SIGHUP, report on SIGUSR1
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:1337", value_parser = resolve)]
    address: SocketAddr,
    /// A TOML file with max_clients and drain_seconds; SIGHUP reads it again
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = address.to_socket_addrs()?;
    addresses.next().context("the name has no address")
}
// ANCHOR_END: args

// ANCHOR: settings
#[derive(Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// More clients than this are turned away.
    max_clients: usize,
    /// How long the clients may take to finish after SIGTERM.
    drain_seconds: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_clients: 10_000,
            drain_seconds: 10,
        }
    }
}

impl Settings {
    fn read(path: &Path) -> anyhow::Result<Settings> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("cannot use {}", path.display()))
    }
}
// ANCHOR_END: settings

// ANCHOR: service
/// What all handlers share.
struct Service {
    settings_file: Option<PathBuf>,
    settings: Cell<Settings>,
    listener: Cell<Option<Token>>,
    draining: Cell<bool>,
    open: Cell<usize>,
    accepted: Cell<u64>,
    refused: Cell<u64>,
    echoed: Cell<u64>,
    buffer: RefCell<Vec<u8>>,
}
// ANCHOR_END: service

// ANCHOR: start
#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args {
        address,
        settings: settings_file,
    } = Args::parse();
    let settings = settings_file
        .as_deref()
        .map(Settings::read)
        .transpose()?
        .unwrap_or_default();
    let signals = catch_signals().context("cannot catch signals")?;
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    SockRef::from(&listener).listen(1024)?; // std lets only 128 newcomers wait
    let mut reactor = Reactor::new().context("cannot create the event loop")?;
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);
    // ANCHOR_END: start

    // ANCHOR: share
    let service = Rc::new(Service {
        settings_file,
        settings: Cell::new(settings),
        listener: Cell::new(None),
        draining: Cell::new(false),
        open: Cell::new(0),
        accepted: Cell::new(0),
        refused: Cell::new(0),
        echoed: Cell::new(0),
        buffer: RefCell::new(vec![0; BUFFER_SIZE]),
    });
    let shared = Rc::clone(&service);
    let token = reactor.add_listener(listener, move |reactor, stream, peer| {
        welcome(&shared, reactor, stream, peer)
    })?;
    service.listener.set(Some(token));
    // ANCHOR_END: share
    // ANCHOR: dispatch
    let shared = Rc::clone(&service);
    reactor.add_reader(signals, move |reactor, _, mut pipe| {
        // First the pipe, then the flags: a signal that comes in between writes again.
        let _ = pipe.read(&mut [0; 64]);
        for signal in SIGNALS {
            if ARRIVED[signal as usize].swap(false, SeqCst) {
                on_signal(&shared, reactor, signal);
            }
        }
        Ok(())
    })?;
    reactor.run().context("the event loop failed")?;
    // ANCHOR_END: dispatch

    // ANCHOR: status
    // Status 0 says that we have cut off nobody whom we had accepted, 1 that we have.
    anyhow::ensure!(
        service.open.get() == 0,
        "{} clients were cut off",
        service.open.get()
    );
    let _ = writeln!(io::stdout(), "All clients have left");
    Ok(())
}
// ANCHOR_END: status

// ANCHOR: on-signal
#[cfg(unix)]
fn on_signal(service: &Service, reactor: &mut Reactor, signal: Signal) {
    match signal {
        SIGHUP => service.reload(),
        SIGUSR1 => service.report(),
        _ if service.draining.replace(true) => {
            let _ = writeln!(
                io::stdout(),
                "Received {signal}, the second request. Ending now"
            );
            reactor.stop();
        }
        _ => {
            let (open, limit) = (service.open.get(), service.settings.get().drain_seconds);
            let _ = writeln!(
                io::stdout(),
                "Received {signal}. {open} clients may finish within {limit} s"
            );
            // This closes the port. Who was still waiting in the kernel's queue is reset.
            if let Some(listener) = service.listener.take() {
                reactor.remove(listener);
            }
            reactor.add_timer(Duration::from_secs(limit), Reactor::stop);
            service.stop_if_drained(reactor);
        }
    }
}
// ANCHOR_END: on-signal

// ANCHOR: reload
impl Service {
    /// Bad settings change nothing: a running service does not end for a typing error.
    fn reload(&self) {
        let Some(file) = &self.settings_file else {
            let _ = writeln!(io::stderr(), "there is no settings file to read again");
            return;
        };
        let _ = match Settings::read(file) {
            Ok(settings) => {
                self.settings.set(settings);
                let Settings {
                    max_clients,
                    drain_seconds,
                } = settings;
                writeln!(
                    io::stdout(),
                    "Settings: max_clients = {max_clients}, drain_seconds = {drain_seconds}"
                )
            }
            Err(error) => writeln!(io::stderr(), "settings kept: {error:#}"),
        };
    }
    // ANCHOR_END: reload

    // ANCHOR: report
    fn report(&self) {
        let (open, accepted) = (self.open.get(), self.accepted.get());
        let (refused, echoed) = (self.refused.get(), self.echoed.get());
        let _ = writeln!(
            io::stdout(),
            "Clients: {open} open, {accepted} accepted, {refused} refused; {echoed} bytes echoed"
        );
    }
    // ANCHOR_END: report

    // ANCHOR: stop-if-drained
    fn stop_if_drained(&self, reactor: &mut Reactor) {
        if self.draining.get() && self.open.get() == 0 {
            reactor.stop();
        }
    }
}
// ANCHOR_END: stop-if-drained

// ANCHOR: welcome
fn welcome(
    service: &Rc<Service>,
    reactor: &mut Reactor,
    stream: TcpStream,
    peer: SocketAddr,
) -> io::Result<()> {
    if service.open.get() >= service.settings.get().max_clients {
        service.refused.update(|count| count + 1);
        let _ = writeln!(
            io::stderr(),
            "Client {peer} refused: there are max_clients already"
        );
        return Ok(());
    }
    let connection = Connection {
        peer,
        service: Rc::clone(service),
        pending: Box::default(),
        sent: 0,
    };
    reactor.add(stream, Interest::Read, connection)?;
    service.open.update(|count| count + 1);
    service.accepted.update(|count| count + 1);
    let _ = writeln!(io::stdout(), "Client {peer} connected");
    Ok(())
}
// ANCHOR_END: welcome

// ANCHOR: connection
/// One client, and what it has not taken yet.
struct Connection {
    peer: SocketAddr,
    service: Rc<Service>,
    pending: Box<[u8]>,
    sent: usize,
}
// ANCHOR_END: connection

// ANCHOR: readable
impl Handler<TcpStream> for Connection {
    fn readable(
        &mut self,
        reactor: &mut Reactor,
        me: Token,
        mut stream: &TcpStream,
    ) -> io::Result<()> {
        let mut buffer = self.service.buffer.borrow_mut();
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()), // a hint only
            result => result?,
        };
        if count == 0 {
            let _ = writeln!(io::stdout(), "Client {} closed the connection", self.peer);
            reactor.remove(me);
            self.leave(reactor);
            return Ok(());
        }
        let sent = self.send(stream, &buffer[..count])?;
        if sent < count {
            self.pending = buffer[sent..count].into();
            self.sent = 0;
            reactor.set_interest(me, Interest::Write)?;
        }
        Ok(())
    }
    // ANCHOR_END: readable

    // ANCHOR: writable
    fn writable(&mut self, reactor: &mut Reactor, me: Token, stream: &TcpStream) -> io::Result<()> {
        self.sent += self.send(stream, &self.pending[self.sent..])?;
        if self.sent == self.pending.len() {
            self.pending = Box::default(); // gives the memory back
            reactor.set_interest(me, Interest::Read)?;
        }
        Ok(())
    }
    // ANCHOR_END: writable

    // ANCHOR: failed
    fn failed(&mut self, reactor: &mut Reactor, error: io::Error) {
        let _ = writeln!(io::stderr(), "Client {}: {error}", self.peer);
        self.leave(reactor);
    }
}
// ANCHOR_END: failed

// ANCHOR: leave
impl Connection {
    fn leave(&self, reactor: &mut Reactor) {
        self.service.open.update(|count| count - 1);
        self.service.stop_if_drained(reactor);
    }
    // ANCHOR_END: leave

    // ANCHOR: send
    /// Writes what the socket takes now, which may be less than all, or nothing.
    fn send(&self, mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        let sent = match stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            result => result?,
        };
        self.service.echoed.update(|count| count + sent as u64);
        Ok(sent)
    }
}
// ANCHOR_END: send

// ANCHOR: handler
/// A flag for each signal number, and the writing end of the self-pipe, for the handler.
static ARRIVED: [AtomicBool; 65] = [const { AtomicBool::new(false) }; 65];
static PIPE: AtomicI32 = AtomicI32::new(-1);

#[cfg(unix)]
extern "C" fn on_arrival(signal: i32) {
    ARRIVED[signal as usize].store(true, SeqCst);
    let errno = Errno::last_raw(); // the interrupted code may be about to look at it
    // SAFETY: write(2) is async-signal-safe, and the byte outlives the call. If the pipe is
    // full it fails (it does not block): then the loop has reason enough to look already.
    unsafe { libc::write(PIPE.load(SeqCst), c"".as_ptr().cast(), 1) };
    Errno::set_raw(errno);
}
// ANCHOR_END: handler

// ANCHOR: catch
/// The self-pipe of `self-pipe-fork`, for the reactor to read.
#[cfg(unix)]
fn catch_signals() -> anyhow::Result<PipeReader> {
    let (reader, writer) = io::pipe()?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    PIPE.store(writer.into_raw_fd(), SeqCst); // it stays open until the process ends

    let handler = SigHandler::Handler(on_arrival);
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    for signal in SIGNALS {
        // SAFETY: the handler does only what is async-signal-safe: it stores to an atomic,
        // calls write(2), and keeps errno.
        unsafe { sigaction(signal, &action) }?;
    }
    // Whoever started us may have blocked them, and a mask is inherited, too.
    SigSet::from_iter(SIGNALS).thread_unblock()?;
    Ok(reader)
}
// ANCHOR_END: catch

// ANCHOR: not-unix
#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("signals need Unix; on Windows, run this program in WSL")
}
// ANCHOR_END: not-unix
// ANCHOR_END: all
