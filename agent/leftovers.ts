import type { Logger } from './health/log.ts'
import { Interfaces } from './interfaces.ts'
import { NETLINK_ROUTE, NetlinkSocket } from './kernel/netlink-socket.ts'
import { ClsactPrograms } from './sources/clsact-programs.ts'
import { TcSamplers } from './sources/tc-samplers.ts'
import { dumpQdiscs, readQdisc } from './wire/netlink/tc.ts'

/**
 * What an agent leaves in the kernel when it is killed: tc samplers, and BPF programs where the kernel has no TCX. All of
 * it hangs on clsact or ingress qdiscs, so that one look at those tells most hosts that there is nothing.
 */

export interface LeftoverOptions {
  readonly log: Logger
  /** The agent that left them, by its sub-agent id. */
  readonly instance: number
}

/**
 * Takes away everything that the agent `instance` has left in this network namespace; false when there was nothing. Needs
 * CAP_NET_ADMIN if there is any.
 */
export async function removeLeftovers({ log, instance }: LeftoverOptions): Promise<boolean> {
  if ((await hookedInterfaces()).length === 0) return false
  const interfaces = new Interfaces({ log })
  await interfaces.start()
  const samplers = new TcSamplers({ log, interfaces, instance })
  try {
    samplers.start()
    await samplers.apply([])
  } finally {
    await samplers.stop()
    interfaces.stop()
  }
  const programs = await removePrograms({ log, instance })
  return programs > 0 || samplers.leftovers > 0
}

/**
 * Takes away BPF programs of interfaces that may not be sampled any more; those that are get new ones anyway. Gives the
 * number of interfaces.
 */
export async function removePrograms({ log, instance }: LeftoverOptions): Promise<number> {
  const hooked = await hookedInterfaces()
  if (hooked.length === 0) return 0
  let removed = 0
  const programs = ClsactPrograms.open(instance)
  try {
    for (const ifIndex of hooked) {
      if (!(await programs.removeOld(ifIndex))) continue
      removed++
      log.info({ ifIndex }, 'removed BPF programs of an earlier run')
    }
    return removed
  } finally {
    programs.close()
  }
}

async function hookedInterfaces(): Promise<number[]> {
  const socket = NetlinkSocket.open(NETLINK_ROUTE)
  try {
    const qdiscs = (await socket.dump(dumpQdiscs(), 'list qdiscs')).map(readQdisc)
    return qdiscs.filter(({ kind }) => kind === 'clsact' || kind === 'ingress').map(({ ifIndex }) => ifIndex)
  } finally {
    socket.close()
  }
}
