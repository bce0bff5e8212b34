//! A TCP relay with faults, and an image server with one.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result};

/// What a relay does to the bytes towards the client. The number of bytes counts for each connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RelayFault {
    /// It closes the connection.
    CutsAfter(usize),
    /// It passes nothing on, and keeps the connection open.
    StallsAfter(usize),
}

/// A relay that listens until the end of the test.
#[derive(Debug)]
pub(crate) struct Relay;

impl Relay {
    /// Passes connections to `from` on to `to`.
    pub(crate) fn start(from: SocketAddr, to: SocketAddr, fault: RelayFault) -> Result<Self> {
        let listener = TcpListener::bind(from).context("a port for the relay")?;
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if let Ok(server) = TcpStream::connect(to) {
                    join(client, server, fault);
                }
            }
        });
        Ok(Self)
    }
}

fn join(client: TcpStream, server: TcpStream, fault: RelayFault) {
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    thread::spawn(move || pass(server, client, fault));
}

fn pass(mut server: TcpStream, mut client: TcpStream, fault: RelayFault) {
    let (RelayFault::CutsAfter(most) | RelayFault::StallsAfter(most)) = fault;
    let (mut passed, mut buffer) = (0, [0; 16 * 1024]);
    while passed < most {
        let Ok(len @ 1..) = server.read(&mut buffer) else { break };
        if client.write_all(&buffer[..len]).is_err() {
            break;
        }
        passed += len;
    }
    match fault {
        RelayFault::StallsAfter(_) if passed >= most => {
            // Until the server gives up.
            while matches!(server.peek(&mut [0]), Ok(1..)) {
                thread::park_timeout(std::time::Duration::from_millis(200));
            }
        }
        RelayFault::CutsAfter(_) | RelayFault::StallsAfter(_) => {}
    }
    for stream in [server, client] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// A server that sends the first megabyte of each file, and then nothing.
pub(crate) fn stalling_image_server(at: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind(at).context("a port for the image server")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        let mut held = Vec::new();
        for mut client in listener.incoming().map_while(Result::ok) {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n";
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(head.as_bytes());
            let _ = client.write_all(&vec![0; 1 << 20]);
            held.push(client);
        }
    });
    Ok(address)
}
