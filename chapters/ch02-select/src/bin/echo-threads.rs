// ANCHOR: all
// ANCHOR: intro
//! The second answer: a thread for each client, and every call may block.
//!
//! The code is that of chapter 1 again, as each thread has one client only. The price
//! is a stack for each of them, and the kernel's work to switch between them. There is
//! no limit here: when memory runs out, the process ends, and all its clients with it.
// ANCHOR_END: intro

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    thread::{self, Builder},
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use socket2::SockRef;

// ANCHOR: sizes
/// A thread's share of memory for reading; small, since every client has one.
const BUFFER_SIZE: usize = 16 * 1024;

/// Rust gives a thread 2 MiB of stack. Only pages that were touched cost memory, but
/// every reservation counts against the process's limits; this loop needs little.
const STACK_SIZE: usize = 128 * 1024;
// ANCHOR_END: sizes

// ANCHOR: arguments
/// Echo to many clients in one process: a thread for each of them
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:9000", value_parser = resolve)]
    address: SocketAddr,
}
// ANCHOR_END: arguments

// ANCHOR: resolve
fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut addresses = address.to_socket_addrs()?;
    addresses.next().context("the name has no address")
}
// ANCHOR_END: resolve

// ANCHOR: start
fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let listener = TcpListener::bind(address).context(format!("cannot listen on {address}"))?;
    SockRef::from(&listener).listen(1024)?; // std lets only 128 newcomers wait
    let _ = writeln!(io::stdout(), "Listening on {}", listener.local_addr()?);
    // ANCHOR_END: start

    // ANCHOR: spawn
    let main_thread = thread::current();
    let mut full = false;
    loop {
        match listener.accept() {
            Ok((connection, peer)) => {
                full = false;
                let main_thread = main_thread.clone();
                let client = move || {
                    serve(connection, peer);
                    main_thread.unpark(); // there may be room for a newcomer now
                };
                // Not thread::spawn: that panics when the system has no thread left.
                // The error drops the closure, and with it the connection.
                if let Err(error) = Builder::new().stack_size(STACK_SIZE).spawn(client) {
                    let _ = writeln!(io::stderr(), "Client {peer} refused: {error}");
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            // No descriptor is left: rest until a client of ours leaves, or for a
            // second, as others may give some back. Asking again at once would spin.
            Err(error) => {
                if !full {
                    let _ = writeln!(io::stderr(), "cannot accept for now: {error}");
                }
                full = true;
                thread::park_timeout(Duration::from_secs(1));
            }
        }
    }
}
// ANCHOR_END: spawn

// ANCHOR: serve
/// Serves one client to its end, and closes the connection.
fn serve(connection: TcpStream, peer: SocketAddr) {
    let _ = writeln!(io::stdout(), "Client {peer} connected");
    let _ = match echo(&connection) {
        Ok(()) => writeln!(io::stdout(), "Client {peer} closed the connection"),
        Err(error) => writeln!(io::stderr(), "Client {peer}: {error}"),
    };
}
// ANCHOR_END: serve

// ANCHOR: echo
fn echo(mut connection: &TcpStream) -> io::Result<()> {
    let mut buffer = [0; BUFFER_SIZE]; // on the stack: this thread has it to itself
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => connection.write_all(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
// ANCHOR_END: echo
// ANCHOR_END: all
