/** The machines that packages are made for, by their names in each world. */

export interface Target {
  /** In Debian and in OCI images. */
  readonly name: 'amd64' | 'arm64'
  readonly rpm: string
  readonly node: string
  /** Of the compiler, and of folders with libraries. */
  readonly triplet: string
  /** The loader of programs. */
  readonly loader: string
  /** Runs its programs here when this is another machine. */
  readonly emulator: string
}

export const TARGETS: readonly Target[] = [
  {
    name: 'amd64',
    rpm: 'x86_64',
    node: 'x64',
    triplet: 'x86_64-linux-gnu',
    loader: 'lib64/ld-linux-x86-64.so.2',
    emulator: 'qemu-x86_64-static',
  },
  {
    name: 'arm64',
    rpm: 'aarch64',
    node: 'arm64',
    triplet: 'aarch64-linux-gnu',
    loader: 'lib/ld-linux-aarch64.so.1',
    emulator: 'qemu-aarch64-static',
  },
]

/** What is built with the packages of another release of Debian: the oldest C library that is still to be had. */
export const SYSROOT = {
  suite: 'bullseye',
  packages: [
    'libc6',
    'libc6-dev',
    'linux-libc-dev',
    'zlib1g',
    'zlib1g-dev',
    'libgcc-s1',
    'libgcc-10-dev',
    'libcrypt1',
  ],
} as const

/** What a program needs of a system around it in a container image; base-files has the texts of licences. */
export const BASE = {
  suite: 'trixie+security',
  packages: ['libc6', 'libgcc-s1', 'libstdc++6', 'gcc-14-base', 'base-files'],
} as const

/** The oldest libraries that the packages run with: those of Debian 10 and of Enterprise Linux 8. */
export const FLOOR = { GLIBC: '2.28', GLIBCXX: '3.4.25', CXXABI: '1.3.11' } as const
