// ANCHOR: all
// ANCHOR: seven-steps
//! Chapter 1: a TCP echo server that serves one client at a time.
//!
//! The seven steps of a TCP server, each of them a system call: socket, bind, listen,
//! accept, read, write, close.
// ANCHOR_END: seven-steps

// ANCHOR: imports
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, ToSocketAddrs},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
// ANCHOR_END: imports

// ANCHOR: buffer-size
/// The most that one read takes. A stream has no messages, so any size is right.
const BUFFER_SIZE: usize = 64 * 1024;
// ANCHOR_END: buffer-size

// ANCHOR: arguments
/// Echo every byte back to one client at a time: a TCP server in seven steps
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(default_value = "127.0.0.1:1337", value_parser = resolve)]
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
    let listener = listen(address).with_context(|| format!("cannot listen on {address}"))?;
    let local = show(listener.local_addr()?);
    // Not println!: it panics when nobody reads our output any more.
    let _ = writeln!(io::stdout(), "Listening on {local}");
    // ANCHOR_END: start

    // ANCHOR: accept-loop
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        // Step 4: take the next client from the kernel's queue; sleep until there is one.
        match listener.accept() {
            Ok((connection, peer)) => serve(connection, &show(peer), &mut buffer),
            Err(error) => match error.kind() {
                // A signal came first, or the client has left the queue again.
                ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                // Mostly no descriptor or memory is left, and the client stays in the queue:
                // asking again at once would spin, so let a second pass. The rest is rare.
                _ => {
                    let _ = writeln!(io::stderr(), "cannot accept: {error}");
                    thread::sleep(Duration::from_secs(1));
                }
            },
        }
    }
}
// ANCHOR_END: accept-loop

// ANCHOR: listen
/// Steps 1 to 3: make a socket, give it the address, let the kernel answer for it.
fn listen(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let listener = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // Our last connections may linger in TIME_WAIT for a minute or so: on Unix this allows a
    // restart meanwhile. On Windows it would let a stranger take the port, so not there.
    #[cfg(unix)]
    listener.set_reuse_address(true)?;
    listener.bind(&address.into())?;
    // From here on the kernel connects clients for us, and lets 128 wait to be accepted.
    listener.listen(128)?;
    Ok(listener)
}
// ANCHOR_END: listen

// ANCHOR: serve
/// Serves one client to its end. Its trouble is a line on stderr, and never ends the server.
fn serve(connection: Socket, peer: &str, buffer: &mut [u8]) {
    let _ = writeln!(io::stdout(), "Client {peer} connected");
    let _ = match echo(&connection, buffer) {
        Ok(()) => writeln!(io::stdout(), "Client {peer} closed the connection"),
        Err(error) => writeln!(io::stderr(), "Client {peer}: {error}"),
    };
    drop(connection); // Step 7: the kernel sends our FIN, or a reset if bytes are left unread.
}
// ANCHOR_END: serve

// ANCHOR: echo
/// Steps 5 and 6: whatever a read brings goes back whole, until the client has said it all.
fn echo(mut connection: &Socket, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match connection.read(buffer) {
            Ok(0) => return Ok(()), // the end of the stream, and its only sign
            Ok(count) => connection.write_all(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
// ANCHOR_END: echo

// ANCHOR: show
fn show(address: SockAddr) -> String {
    let address = address.as_socket();
    address.map_or("an unknown address".into(), |it| it.to_string())
}
// ANCHOR_END: show
// ANCHOR_END: all
