import { groupInAll } from '../kernel/cgroup.ts'
import type { DbusValue, DbusVariant } from '../wire/dbus.ts'
import { DbusConnection, DbusError } from './dbus-connection.ts'
import { connectionError, type Found, mapSome, REQUEST_TIMEOUT_MS, type Runtime, STATE } from './runtime.ts'

/** The services of systemd, asked over D-Bus (org.freedesktop.systemd1(5)). */

export const SYSTEM_BUS = '/run/dbus/system_bus_socket'

export interface SystemdOptions {
  /** Socket of the bus. */
  readonly path: string
  /** Path of a file with the processes of a unit, `%s` for its control group; undefined takes those of the group. */
  readonly processes: string | undefined
  /** Derives the UUID of a unit from its name. */
  readonly uuidOf: (name: string) => string
}

const SYSTEMD = 'org.freedesktop.systemd1'
const MANAGER = {
  destination: SYSTEMD,
  path: '/org/freedesktop/systemd1',
  interface: `${SYSTEMD}.Manager`,
} as const
/** name, description, load state, active state, sub state, followed unit, object, job, job type, job object */
const UNITS = 'a(ssssssouso)'
const QUESTIONS_AT_ONCE = 16

interface Unit {
  readonly name: string
  readonly object: string
}

export class SystemdRuntime implements Runtime {
  readonly name = 'systemd'
  readonly things = 'services'
  readonly #options: SystemdOptions
  #connection: DbusConnection | undefined

  constructor(options: SystemdOptions) {
    this.#options = options
  }

  /** Active services of the system slice that have processes. */
  async list(): Promise<Found[]> {
    const { path } = this.#options
    try {
      if (this.#connection?.isOpen !== true) {
        this.#connection = await DbusConnection.open(path, REQUEST_TIMEOUT_MS)
      }
      const connection = this.#connection
      const units = await listUnits(connection)
      const groups = await mapSome(units, QUESTIONS_AT_ONCE, ({ object }) => groupOf(connection, object))
      return units.flatMap(({ name }, i) => {
        const group = groups[i]
        // Services of users, and those that ran and left nothing.
        if (group === undefined || !group.includes('system.slice')) return []
        return [this.#found(name, group)]
      })
    } catch (error) {
      // The next search begins anew: what may still come would answer this one.
      this.close()
      throw connectionError(error, 'D-Bus', path, 'is dbus running? without systemd leave systemd { } out')
    }
  }

  close(): void {
    this.#connection?.close()
    this.#connection = undefined
  }

  #found(name: string, group: string): Found {
    const { uuidOf, processes } = this.#options
    return {
      uuid: uuidOf(name),
      name,
      state: STATE.running,
      groups: [groupInAll(group)],
      pid: undefined,
      ...(processes === undefined ? {} : { processes: processes.replace('%s', () => group) }),
    }
  }
}

async function listUnits(connection: DbusConnection): Promise<Unit[]> {
  let body: readonly DbusValue[]
  try {
    body = await connection.call({
      ...MANAGER,
      member: 'ListUnitsByPatterns',
      signature: 'asas',
      body: [['active', 'reloading'], ['*.service']],
      returns: UNITS,
    })
  } catch (error) {
    if (!(error instanceof DbusError) || !error.dbusName.endsWith('.UnknownMethod')) throw error
    // systemd before 230.
    body = await connection.call({ ...MANAGER, member: 'ListUnits', returns: UNITS })
  }
  const units = body[0] as readonly (readonly string[])[]
  return units.flatMap(unit => {
    const [name, , , active, sub, , object] = unit as [string, string, string, string, string, string, string]
    const isRunning = (active === 'active' || active === 'reloading') && sub !== 'exited'
    return isRunning && name.endsWith('.service') ? [{ name, object }] : []
  })
}

/** The control group of a service, undefined when it has none; a unit that is gone meanwhile has none. */
async function groupOf(connection: DbusConnection, object: string): Promise<string | undefined> {
  try {
    const [variant] = await connection.call({
      destination: SYSTEMD,
      path: object,
      interface: 'org.freedesktop.DBus.Properties',
      member: 'Get',
      signature: 'ss',
      body: [`${SYSTEMD}.Service`, 'ControlGroup'],
      returns: 'v',
    })
    const { signature, value } = variant as DbusVariant
    return signature === 's' && value !== '' && !(value as string).includes('/../')
      ? (value as string)
      : undefined
  } catch (error) {
    if (error instanceof DbusError) return undefined
    throw error
  }
}
