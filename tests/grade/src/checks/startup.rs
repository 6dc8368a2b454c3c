//! The command line, the address, and the first moments.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::unistd::geteuid;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::catalog::{Protocol, Traits};
use crate::check::{Case, Check, During, Ending, Failure, ORDINARY, Result, Stop};
use crate::job::describe;
use crate::program::Lease;
use crate::server::{run_command_to_end, run_to_end};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "the first line names the real port",
        cause: "the line is printed before bind, names port 0, or stays in a buffer",
        section: "ch01-echo/seven-steps.md#bind",
        descriptors: ORDINARY,
        applies: Traits::is_server,
        run: first_line,
    },
    Check {
        name: "--help explains the address",
        cause: "the command line is not described",
        section: "ch01-echo/seven-steps.md#the-command-line",
        descriptors: ORDINARY,
        applies: Traits::takes_address,
        run: help,
    },
    Check {
        name: "an unknown flag is refused by its name",
        cause: "arguments that are not understood are ignored",
        section: "ch01-echo/seven-steps.md#the-command-line",
        descriptors: ORDINARY,
        applies: Traits::takes_address,
        run: unknown_flag,
    },
    Check {
        name: "a malformed address is refused with a reason",
        cause: "a port is turned into a number without looking: text becomes 0, which \
                picks any port, and 70000 becomes 4464",
        section: "ch01-echo/seven-steps.md#the-command-line",
        descriptors: ORDINARY,
        applies: Traits::takes_address,
        run: malformed_address,
    },
    Check {
        name: "a taken port is refused with a reason",
        cause: "the result of bind is used before it is looked at",
        section: "ch01-echo/seven-steps.md#bind",
        descriptors: ORDINARY,
        applies: Traits::is_server,
        run: taken_port,
    },
    Check {
        name: "a privileged port without permission is refused with a reason",
        cause: "the error of bind is not reported with its address and reason",
        section: "ch01-echo/seven-steps.md#bind",
        descriptors: ORDINARY,
        applies: Traits::is_server,
        run: privileged_port,
    },
    Check {
        name: "a restart on the same port works at once",
        cause: "SO_REUSEADDR is not set, and connections of the last run are in TIME_WAIT",
        section: "ch01-echo/endings.md#time-wait",
        descriptors: ORDINARY,
        applies: Traits::is_tcp_server,
        run: restart,
    },
    Check {
        name: "the server outlives the reader of its output",
        cause: "a line for a terminal that is gone fails with EPIPE, and that ends the server",
        section: "ch05-signals/sigpipe.md#sigpipe",
        descriptors: ORDINARY,
        applies: Traits::is_server,
        run: output_closed,
    },
];

fn first_line(case: &Case) -> Result {
    case.conventions()?;
    // Starting a server reads the line; here two of them must differ, as the
    // port is the kernel's choice, and both be reachable.
    case.serve(|first| {
        case.serve(|second| {
            if first.address() == second.address() {
                return Failure::new("starting the program twice with port 0")
                    .expected("two ports")
                    .came(first.address().to_string())
                    .stop();
            }
            for server in [first, second] {
                if case.traits().is_tcp_server() {
                    case.stranger(server)?;
                } else {
                    case.visit(server)?;
                }
            }
            Ok(())
        })
    })
}

fn help(case: &Case) -> Result {
    let ending = refused(case, &["--help"])?;
    let names_address = ending.stdout.to_lowercase().contains("addr");
    require(
        ending.status.code() == Some(0) && names_address,
        "--help",
        "exit status 0 and an explanation of the address on standard output",
        &ending,
    )
}

fn unknown_flag(case: &Case) -> Result {
    let ending = refused(case, &["--no-such-flag"])?;
    require(
        ending.status.code() == Some(2) && ending.stderr.contains("--no-such-flag"),
        "--no-such-flag",
        "exit status 2 and the flag's name on standard error",
        &ending,
    )
}

fn malformed_address(case: &Case) -> Result {
    let addresses = [
        "notanumber",
        "127.0.0.1:notanumber",
        "127.0.0.1:70000",
        "127.0.0.1:-1",
        "127.0.0.1",
    ];
    for address in addresses {
        let ending = refused(case, &case.program.at(address).collect::<Vec<_>>())?;
        let said = &ending.stderr;
        // The value, and at least some words about it.
        let explained = said.contains(address) && said.len() > address.len() + 10;
        require(
            matches!(ending.status.code(), Some(1 | 2)) && explained,
            address,
            "exit status 2, and on standard error the value and what is wrong with it",
            &ending,
        )?;
    }
    Ok(())
}

fn taken_port(case: &Case) -> Result {
    let udp = case.traits().protocol == Protocol::EchoUdp;
    let kind = if udp { Type::DGRAM } else { Type::STREAM };
    let taken = take_port(kind).during("taking a port")?;
    let address = taken.local_addr().during("asking for its number")?;
    let Some(address) = address.as_socket() else {
        return Err(Stop::skipped("the port has no address of IPv4 or IPv6"));
    };
    let ending = run_command_to_end(case.program.command(address, &[]), None, case.deadline)?;
    let ours = case.conventions().is_ok();
    // Another program may complain where and how it likes, if it does.
    let said = if ours {
        ending.stderr.to_lowercase()
    } else {
        format!("{}{}", ending.stdout, ending.stderr).to_lowercase()
    };
    let names_address = said.contains(&address.to_string()) || !ours;
    require(
        matches!(ending.status.code(), Some(1 | 2)) && said.contains("in use") && names_address,
        &address.to_string(),
        "exit status 1, and on standard error the address and that it is in use",
        &ending,
    )
}

/// A port where somebody listens already, or receives.
fn take_port(kind: Type) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    if kind == Type::STREAM {
        socket.listen(1)?;
    }
    Ok(socket)
}

fn privileged_port(case: &Case) -> Result {
    const ADDRESS: &str = "127.0.0.1:1";
    /// "nobody" on most systems; any user but root will do.
    const NOBODY: u32 = 65_534;
    let executable = case.conventions()?;
    if !geteuid().is_root() && TcpListener::bind(ADDRESS).is_ok() {
        return Err(Stop::skipped("anyone may bind port 1 here"));
    }
    // Linux has a first port that needs no permission, which may be 0.
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first = first
        .ok()
        .and_then(|first| first.trim().parse::<u32>().ok());
    if first.is_some_and(|first| first <= 1) {
        return Err(Stop::skipped(
            "anyone may bind port 1 here (net.ipv4.ip_unprivileged_port_start)",
        ));
    }
    // Root's files may lie where nobody else can go; a copy lies where all can.
    let directory = TempDir::new().during("making a directory for a copy of the program")?;
    let everyone = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory.path(), everyone).during("opening it for everyone")?;
    let copy = directory.path().join("program");
    // Not by fs::copy: a server that another thread starts meanwhile would
    // inherit the copy's descriptor between fork and exec, and a file that
    // is open for writing cannot be run (ETXTBSY).
    let copied = Command::new("cp").arg(executable).arg(&copy).status();
    copied.during("copying the program")?;
    let user = geteuid().is_root().then_some(NOBODY);
    let arguments: Vec<_> = case.program.at(ADDRESS).collect();
    let ending = run_to_end(copy, &arguments, user, case.deadline)?;
    let said = ending.stderr.to_lowercase();
    require(
        matches!(ending.status.code(), Some(1 | 2))
            && said.contains(ADDRESS)
            && said.contains("denied"),
        &format!("{ADDRESS}, as a user who is not root"),
        "exit status 1, and on standard error the address and that permission is denied",
        &ending,
    )
}

fn restart(case: &Case) -> Result {
    let lease = Lease::new(case.traits().protocol).during("looking for a free port")?;
    for round in 1..=3 {
        let server = case.launch().port(lease.port()).start()?;
        let mut clients = Vec::new();
        for _ in 0..case.at_once(5) {
            let mut client = case.client(&server)?;
            case.talk(&mut client, &format!("round {round}\n"))?;
            clients.push(client);
        }
        // The kernel closes the server's sockets first, so its side of each
        // connection keeps the port in TIME_WAIT when the clients follow.
        server.kill();
        for client in &mut clients {
            client.expect_end()?;
        }
    }
    Ok(())
}

fn output_closed(case: &Case) -> Result {
    case.serve(|server| {
        server.close_its_outputs();
        for _ in 0..3 {
            case.visit(server)?;
            if case.traits().is_tcp_server() {
                case.stranger(server)?.reset();
            }
        }
        case.visit(server)
    })
}

/// Runs the program with arguments with which it must end by itself.
pub(super) fn refused(case: &Case, arguments: &[&str]) -> Result<Ending> {
    let executable = case.conventions()?.to_path_buf();
    run_to_end(executable, arguments, None, case.deadline)
}

/// Looks at how a program ended that was run with `arguments`.
pub(super) fn require(met: bool, arguments: &str, expected: &str, ending: &Ending) -> Result {
    let panicked = ending.stderr.contains("panicked at");
    if met && !panicked && !ending.stdout.contains("Listening on") {
        return Ok(());
    }
    let mut failure = Failure::new("running the program to its end")
        .sent(format!("the command line {arguments}"))
        .expected(expected)
        .came(describe(ending.status));
    let outputs = [("stdout", &ending.stdout), ("stderr", &ending.stderr)];
    for (name, text) in outputs {
        let lines = text.lines().take(6);
        failure
            .server
            .extend(lines.map(|line| format!("{name}: {line}")));
    }
    failure.stop()
}
