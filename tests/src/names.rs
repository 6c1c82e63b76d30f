//! A name server that knows a cluster's Services, for clusters that have none: it answers at port 53 of the node, which is this
//! machine, and forwards nothing.

use k8s_openapi::api::core::v1::{Node, Service};
use kube::{Api, Client, api::ListParams};
use std::net::{IpAddr, Ipv4Addr};
use tokio::{net::UdpSocket, task::JoinHandle};

/// What a header and a question take at least, and the kinds that are asked for.
const HEADER: usize = 12;
const ADDRESS: [u8; 4] = [0, 1, 0, 1];
const NO_SUCH_NAME: u8 = 3;

/// Dropped, it answers no more.
#[derive(Debug)]
pub struct Names {
    address: IpAddr,
    task: JoinHandle<()>,
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Names {
    /// Answers until it is dropped.
    pub async fn serve(client: Client) -> Self {
        let address = node(&client).await;
        let socket = UdpSocket::bind((address, 53)).await;
        let socket = socket.unwrap_or_else(|error| panic!("the cluster has no DNS, nor can the node: {error}"));
        let task = tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                if let Some(question) = Question::read(&buffer[..length]) {
                    let found = question.service(&client).await;
                    drop(socket.send_to(&question.answer(found), from).await);
                }
            }
        });
        Self { address, task }
    }

    /// Where it is.
    pub const fn address(&self) -> IpAddr {
        self.address
    }
}

/// The address of the only node.
async fn node(client: &Client) -> IpAddr {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    let addresses = nodes.items.into_iter().filter_map(|node| node.status?.addresses).flatten();
    let mut internal = addresses.filter(|address| address.type_ == "InternalIP").map(|address| address.address);
    internal.next().unwrap().parse().unwrap()
}

/// What somebody asks.
struct Question<'a> {
    id: [u8; 2],
    /// The name and what is asked of it, as they came.
    whole: &'a [u8],
    name: String,
    wants_address: bool,
}

impl<'a> Question<'a> {
    fn read(packet: &'a [u8]) -> Option<Self> {
        let (mut at, mut name) = (HEADER, String::new());
        loop {
            let length = usize::from(*packet.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            name.push_str(&String::from_utf8_lossy(packet.get(at..at + length)?));
            name.push('.');
            at += length;
        }
        let kind = packet.get(at..at + ADDRESS.len())?;
        let whole = packet.get(HEADER..at + ADDRESS.len())?;
        Some(Self { id: [packet[0], packet[1]], whole, name, wants_address: kind == ADDRESS })
    }

    async fn service(&self, client: &Client) -> Option<Ipv4Addr> {
        let (name, namespace) = self.name.strip_suffix(".svc.cluster.local.")?.split_once('.')?;
        let service = Api::<Service>::namespaced(client.clone(), namespace).get_opt(name).await.ok()??;
        service.spec?.cluster_ip?.parse().ok()
    }

    fn answer(&self, found: Option<Ipv4Addr>) -> Vec<u8> {
        let address = found.filter(|_| self.wants_address);
        let code = if found.is_some() { 0 } else { NO_SUCH_NAME };
        let answers = u8::from(address.is_some());
        let mut packet = [&self.id[..], &[0x84, code, 0, 1, 0, answers, 0, 0, 0, 0], self.whole].concat();
        if let Some(address) = address {
            // The name is the question's; the address holds for no time, since Services come and go.
            packet.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            packet.extend(address.octets());
        }
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::Question;
    use std::net::Ipv4Addr;

    #[test]
    fn a_question_is_read_and_answered() {
        let mut packet = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in ["a", "ns", "svc", "cluster", "local"] {
            packet.push(u8::try_from(label.len()).unwrap());
            packet.extend(label.as_bytes());
        }
        packet.extend([0, 0, 1, 0, 1]);
        let question = Question::read(&packet).unwrap();
        assert_eq!((question.name.as_str(), question.wants_address), ("a.ns.svc.cluster.local.", true));
        let answer = question.answer(Some(Ipv4Addr::new(10, 96, 1, 2)));
        assert_eq!((&answer[..4], &answer[answer.len() - 4..]), (&[7, 9, 0x84, 0][..], &[10, 96, 1, 2][..]));
        assert_eq!(question.answer(None)[3], 3);
        assert!(Question::read(&packet[..20]).is_none());
    }
}
