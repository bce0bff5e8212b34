//! Names, resolved by the machines' name servers: this host's own may give other answers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use socket2::{Domain, Protocol, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::super::socket::on;

const DNS: u16 = 53;
/// Number of tries, and time limit of each answer.
const TIMES: u32 = 2;
const WAIT: Duration = Duration::from_secs(1);

/// The addresses of a name at a server, of the server's own family.
///
/// `interface` is the interface to use; `None` for a server on this host itself.
///
/// # Errors
/// The server does not answer, or has no address for the name.
pub async fn addresses(name: &str, server: IpAddr, interface: Option<&str>) -> Result<Vec<IpAddr>> {
    let kind = if server.is_ipv4() { RecordType::A } else { RecordType::AAAA };
    let question = question(name, kind)?;
    let socket = open(server, interface).await.context("cannot be asked")?;
    for _ in 0..TIMES {
        if let Err(error) = socket.send(&question.to_vec()?).await {
            return Err(anyhow!(error).context("cannot be asked"));
        }
        let mut buffer = [0; 4_096];
        // Refused by the server's host, or too late.
        let Ok(Ok(len)) = timeout(WAIT, socket.recv(&mut buffer)).await else { continue };
        match Message::from_vec(&buffer[..len]) {
            Ok(answer) if answer.id == question.id => return read(&answer, kind),
            Ok(_) | Err(_) => {}
        }
    }
    bail!("does not answer")
}

fn question(name: &str, kind: RecordType) -> Result<Message> {
    let mut name = Name::from_ascii(name).with_context(|| format!("{name} is not a DNS name"))?;
    name.set_fqdn(true);
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    Ok(message)
}

async fn open(server: IpAddr, interface: Option<&str>) -> Result<UdpSocket> {
    let at = SocketAddr::new(server, DNS);
    let socket = match interface {
        Some(interface) => {
            let domain = if server.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
            UdpSocket::from_std(on(interface, domain, Type::DGRAM, Protocol::UDP)?.into())?
        }
        None => UdpSocket::bind(SocketAddr::new(unspecified(server), 0)).await?,
    };
    socket.connect(at).await?;
    Ok(socket)
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() }
}

fn read(answer: &Message, kind: RecordType) -> Result<Vec<IpAddr>> {
    let found: Vec<_> = answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    if answer.response_code == ResponseCode::NoError {
        bail!("knows no address of the kind {kind} of it")
    }
    bail!("says: {}", answer.response_code)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::{RData, Record};

    use super::*;

    #[test]
    fn the_addresses_are_read_and_their_absence_is_said_in_words() {
        let mut answer = question("boot.example", RecordType::A).unwrap();
        let none = read(&answer, RecordType::A).unwrap_err().to_string();
        let name = Name::from_ascii("boot.example.").unwrap();
        let address = RData::A(Ipv4Addr::new(192, 0, 2, 1).into());
        answer.answers.push(Record::from_rdata(name, 60, address));
        let there = Message::from_vec(&answer.to_vec().unwrap()).unwrap();
        answer.answers.clear();
        answer.metadata.response_code = ResponseCode::NXDomain;

        assert!(none.contains("no address of the kind A"), "{none}");
        assert_eq!(read(&there, RecordType::A).unwrap(), [IpAddr::from([192, 0, 2, 1])]);
        assert!(read(&answer, RecordType::A).unwrap_err().to_string().starts_with("says: "));
    }
}
