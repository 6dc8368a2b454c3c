//! What the tests of the reactor share: sockets, and a loop that cannot hang.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    process,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use ch03_reactor::Reactor;

/// No test needs a second. Whatever takes longer than this will never come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Runs the loop. If it does not end by itself, the test fails instead of hanging; if it
/// cannot even be stopped, all tests do.
pub(crate) fn run(reactor: &mut Reactor) {
    let handle = reactor.handle();
    let (running, ended) = mpsc::channel::<()>();
    let test = thread::current().name().map(String::from);
    let watchdog = thread::spawn(move || {
        let late = ended.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout);
        if late {
            handle.stop().expect("the loop can be told");
            if ended.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
                // Not eprintln: the test's output is kept back, and would be lost.
                let _ = writeln!(io::stderr(), "{test:?}: the loop cannot be stopped");
                process::abort();
            }
        }
        late
    });
    let result = reactor.run();
    drop(running);
    let late = watchdog.join().expect("the watchdog only waits");
    assert!(!late, "the loop did not end by itself");
    result.expect("the kernel can wait");
}

/// A connection: our end, non-blocking, and the peer's, which blocks, but not for ever.
pub(crate) fn connect(listener: &TcpListener) -> io::Result<(TcpStream, TcpStream)> {
    let peer = TcpStream::connect(listener.local_addr()?)?;
    peer.set_read_timeout(Some(DEADLINE))?;
    let (ours, _) = listener.accept()?;
    ours.set_nonblocking(true)?;
    Ok((ours, peer))
}

/// Has the peer send, and comes back when it has arrived: now `ours` can be read.
pub(crate) fn send(ours: &TcpStream, mut peer: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    peer.write_all(bytes)?;
    ours.set_nonblocking(false)?;
    ours.set_read_timeout(Some(DEADLINE))?;
    ours.peek(&mut [0])?;
    ours.set_nonblocking(true)
}

/// What one read brings, or nothing if there is nothing.
pub(crate) fn read(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 4096];
    match stream.read(&mut buffer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Vec::new()),
        count => {
            buffer.truncate(count?);
            Ok(buffer)
        }
    }
}
