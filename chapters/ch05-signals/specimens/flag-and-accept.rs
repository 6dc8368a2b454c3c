//! Wrong on purpose: a flag that nobody looks at until the next client comes.
//!
//! A handler sets a flag, and the loop looks at it before each accept: that seems to do
//! without the listing's polling. The handler does interrupt accept(2), which fails with
//! EINTR; but std calls it again by itself, as the kernel does under SA_RESTART. So SIGTERM
//! does nothing: the server hangs until somebody connects. Look at the loop in `main`.
#![cfg_attr(not(unix), allow(unused))]

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
#[cfg(unix)]
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

const BUFFER_SIZE: usize = 64 * 1024;

/// Echo, and end on SIGTERM, but not before the next client (wrong on purpose)
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:1337", value_parser = resolve)]
    address: SocketAddr,
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = address.to_socket_addrs()?;
    addresses.next().context("the name has no address")
}

// ANCHOR: flag
static ASKED_TO_END: AtomicBool = AtomicBool::new(false);

extern "C" fn set_flag(_: i32) {
    ASKED_TO_END.store(true, SeqCst);
}
// ANCHOR_END: flag

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let handler = SigHandler::Handler(set_flag);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.context("cannot catch signals")?;
    }
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);

    // ANCHOR: fault
    let mut buffer = vec![0; BUFFER_SIZE];
    while !ASKED_TO_END.load(SeqCst) {
        // The fault: this sleeps in accept(2), and std starts that again after each signal
        // (EINTR), so that the flag waits for the next client. Sleep in poll(2) on a
        // self-pipe and the listener instead.
        match listener.accept() {
            Ok((connection, peer)) => {
                if let Err(error) = echo(&connection, &mut buffer) {
                    let _ = writeln!(io::stderr(), "Client {peer}: {error}");
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                let _ = writeln!(io::stderr(), "cannot accept: {error}");
                thread::sleep(Duration::from_secs(1));
            }
        }
    }
    let _ = writeln!(io::stdout(), "Asked to end, and nobody is connected");
    Ok(())
    // ANCHOR_END: fault
}

/// Whoever is connected may finish, whatever signal comes meanwhile.
fn echo(mut connection: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match connection.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => connection.write_all(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("signals need Unix; on Windows, run this program in WSL")
}
