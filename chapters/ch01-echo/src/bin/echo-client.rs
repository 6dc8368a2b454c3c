// ANCHOR: all
// ANCHOR: about
//! A client for every server of this handbook, like a small `nc`.
//!
//! What you type goes out line by line; what comes back is printed as it comes. The end of
//! the input (Ctrl-D, on Windows Ctrl-Z and Enter) closes our half of the connection only:
//! the server can still finish its answer, and we wait for the rest.
// ANCHOR_END: about

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
};

use anyhow::Context;
use clap::Parser;

// ANCHOR: arguments
/// Send lines from the input to a server and print what comes back
#[derive(Parser)]
struct Args {
    /// The server to connect to
    #[arg(default_value = "127.0.0.1:1337")]
    address: String,
}
// ANCHOR_END: arguments

// ANCHOR: connect
fn main() -> anyhow::Result<()> {
    let Args { address } = Args::parse();
    let connection =
        TcpStream::connect(&address).with_context(|| format!("cannot connect to {address}"))?;
    // ANCHOR_END: connect

    // ANCHOR: send
    // Two directions, two threads: a client that only writes while the server only writes
    // would wait forever. The sending thread ends with the process.
    let outgoing = connection
        .try_clone()
        .context("cannot share the connection")?;
    thread::spawn(move || {
        // Mostly an error here means that the server has gone, and the reading side will say so.
        let _ = io::copy(&mut io::stdin(), &mut &outgoing);
        let _ = outgoing.shutdown(Shutdown::Write);
    });
    // ANCHOR_END: send

    // ANCHOR: receive
    // Print what the server sends until it closes its half.
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match (&connection).read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => print(&buffer[..count]).context("cannot print")?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(|| format!("lost {address}")),
        }
    }
}
// ANCHOR_END: receive

// ANCHOR: print
/// Not print!: it takes text only, and keeps back a line until its newline has come.
fn print(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(bytes)?;
    stdout.flush()
}
// ANCHOR_END: print
// ANCHOR_END: all
