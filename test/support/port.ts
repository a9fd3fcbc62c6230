import type { Interface } from '../../agent/interfaces.ts'

/** An Ethernet interface of 10 Gb/s that is up, or what `values` make of it. */
export function port(ifIndex: number, name: string, values: Partial<Interface> = {}): Interface {
  return {
    ifIndex,
    name,
    alias: undefined,
    mac: undefined,
    ifType: 6,
    hardwareType: 1,
    kind: undefined,
    adminUp: true,
    operUp: true,
    speedBitsPerSecond: 10e9,
    duplex: 'full',
    mtu: 1500,
    promiscuous: false,
    loopback: false,
    masterIfIndex: undefined,
    masterKind: undefined,
    linkIfIndex: undefined,
    linkNetnsId: undefined,
    vlanId: undefined,
    vlanFiltering: false,
    switchId: undefined,
    physicalPortName: undefined,
    parentDevice: undefined,
    addresses: [],
    ...values,
  }
}
