/** Downloads and builds what the VM tests need, where that was not done before: `node test/vm/prepare.ts`. */

import { KERNELS, type KernelName, prepareImage } from './images.ts'

for (const name of Object.keys(KERNELS) as KernelName[]) {
  await prepareImage(name, line => console.error(`vm: kernel ${name}: ${line}`))
}
