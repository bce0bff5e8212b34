//! One machine: off, or a QEMU process that is watched until it ends.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use redfish::emulator::{Emulator, NextBoot};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use crate::firmware::{self, FirmwareChanges};
use crate::image;
use crate::qemu::{Qemu, QemuEnd};
use crate::setup::{BmcClock, MachineSetup};

/// An order to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PowerOrder {
    Start,
    Stop,
    ShutDown,
    Restart,
    /// A non-maskable interrupt.
    Interrupt,
}

/// The orders to one machine.
pub(crate) struct MachineOrders(mpsc::Sender<PendingOrder>);

type PendingOrder = (PowerOrder, oneshot::Sender<Result<()>>);

/// Starts a machine's task.
pub(crate) fn start_machine(
    setup: MachineSetup,
    emulator: Arc<Mutex<Emulator>>,
    clock: BmcClock,
) -> MachineOrders {
    let (orders, receiver) = mpsc::channel(8);
    let task = MachineTask { setup, emulator, orders: receiver, clock };
    // Before the first client: a change of databases that were not read would empty them.
    task.show_secure_boot();
    tokio::spawn(task.run());
    MachineOrders(orders)
}

impl MachineOrders {
    /// Gives an order, and waits until it is carried out.
    pub(crate) async fn order(&self, order: PowerOrder) -> Result<()> {
        let (done, carried_out) = oneshot::channel();
        self.0.send((order, done)).await.context("the machine's task has ended")?;
        carried_out.await.context("the machine's task has ended")?
    }
}

/// The task of one machine.
struct MachineTask {
    setup: MachineSetup,
    emulator: Arc<Mutex<Emulator>>,
    orders: mpsc::Receiver<PendingOrder>,
    clock: BmcClock,
}

impl MachineTask {
    async fn run(mut self) {
        while let Some((order, done)) = self.orders.recv().await {
            match order {
                PowerOrder::Start | PowerOrder::Restart => {
                    let started = self.start().await;
                    let running = match started {
                        Ok(qemu) => {
                            let _ = done.send(Ok(()));
                            Some(qemu)
                        }
                        Err(failed) => {
                            let _ = done.send(Err(failed));
                            None
                        }
                    };
                    if let Some(qemu) = running {
                        self.follow(qemu).await;
                        self.show_secure_boot();
                    }
                    self.with_emulator(|emulator, id| emulator.stopped(id, self.clock.now()));
                }
                // It is off already.
                PowerOrder::Stop | PowerOrder::ShutDown | PowerOrder::Interrupt => {
                    drop(done.send(Ok(())));
                }
            }
        }
    }

    /// Watches QEMU until the machine is off.
    async fn follow(&mut self, mut qemu: Qemu) {
        loop {
            tokio::select! {
                end = qemu.ended(&self.setup) => match end {
                    QemuEnd::Reset => match self.start().await {
                        Ok(again) => qemu = again,
                        Err(failed) => return error!("the restart after a reset failed: {failed:#}"),
                    },
                    QemuEnd::Off => return info!(system = self.setup.machine.id, "switched itself off"),
                    QemuEnd::Broken(words) => {
                        return error!(system = self.setup.machine.id, "QEMU ended: {words}");
                    }
                },
                order = self.orders.recv() => {
                    let Some((order, done)) = order else { return };
                    match order {
                        PowerOrder::Start => drop(done.send(Ok(()))),
                        PowerOrder::ShutDown => drop(done.send(qemu.press_power_button().await)),
                        PowerOrder::Interrupt => {
                            info!(system = self.setup.machine.id, "gets a non-maskable interrupt");
                            let _ = done.send(qemu.interrupt().await);
                        }
                        PowerOrder::Stop => {
                            qemu.stop().await;
                            self.with_emulator(|emulator, id| emulator.stopped(id, self.clock.now()));
                            let _ = done.send(Ok(()));
                            return;
                        }
                        PowerOrder::Restart => {
                            qemu.stop().await;
                            match self.start().await {
                                Ok(again) => {
                                    qemu = again;
                                    let _ = done.send(Ok(()));
                                }
                                Err(failed) => return drop(done.send(Err(failed))),
                            }
                        }
                    }
                }
            }
        }
    }

    async fn start(&self) -> Result<Qemu> {
        let next = self.with_emulator(|emulator, id| emulator.starts(id, self.clock.now()));
        let next = next.unwrap_or(NextBoot::Usual);
        match &next {
            NextBoot::Usual => info!(system = self.setup.machine.id, "starts"),
            // Without the URL, which may contain a ticket.
            NextBoot::Url(_) => info!(system = self.setup.machine.id, "starts from its URL"),
            NextBoot::Http { nic } => {
                info!(system = self.setup.machine.id, nic, "starts over HTTP");
            }
            NextBoot::Pxe { nic } => info!(system = self.setup.machine.id, nic, "starts by PXE"),
            NextBoot::Cd(_) => info!(system = self.setup.machine.id, "starts from its virtual CD"),
        }
        if let NextBoot::Cd(url) = &next {
            image::fetch(url, &self.setup.cd()).await?;
        }
        let changes = self.with_emulator(|emulator, id| FirmwareChanges {
            authorities: emulator.boot_certificates(id),
            secure_boot: emulator.take_secure_boot(id),
        });
        Qemu::start(&self.setup, &next, &changes).await
    }

    /// Shows what the firmware has of Secure Boot, which its own set-up may have changed.
    fn show_secure_boot(&self) {
        match firmware::secure_boot(&self.setup) {
            Ok(None) => {}
            Ok(Some(shown)) => {
                self.with_emulator(|emulator, id| emulator.show_secure_boot(id, &shown));
            }
            Err(failed) => error!("the databases of Secure Boot cannot be shown: {failed:#}"),
        }
    }

    fn with_emulator<T>(&self, ask: impl FnOnce(&mut Emulator, &str) -> T) -> T {
        let mut emulator = self.emulator.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut emulator, &self.setup.machine.id)
    }
}
