/** What a GPU's maker and its driver say of it. */
export interface Gpu {
  /** As it is asked for on the command line. */
  readonly name: string
  readonly title: string
  /** The whole memory as the driver reports it (nvidia-smi, rocm-smi); CUDA itself may see up to 2 % less. */
  readonly memoryBytes: number
  /** Peak rate of its own memory. */
  readonly memoryBytesPerSecond: number
  /** Peak rate of dense 16-bit matrix arithmetic with 32-bit sums; no sparsity. */
  readonly flopsPerSecond: number
  /** Peak rate from host memory, one way. */
  readonly hostBytesPerSecond: number
  readonly hostLink: string
  /** Where the rates are from. */
  readonly source: string
}

const mib = 2 ** 20
const giga = 1e9
const tera = 1e12

const links = {
  pcie3: { hostBytesPerSecond: 16 * giga, hostLink: 'PCIe 3.0 x16' },
  pcie4: { hostBytesPerSecond: 32 * giga, hostLink: 'PCIe 4.0 x16' },
  pcie5: { hostBytesPerSecond: 64 * giga, hostLink: 'PCIe 5.0 x16' },
  chip: { hostBytesPerSecond: 450 * giga, hostLink: 'NVLink-C2C' },
  sharedChip: { hostBytesPerSecond: 225 * giga, hostLink: 'half of an NVLink-C2C' },
} as const

function gpu(
  name: string,
  title: string,
  memoryMib: number,
  memoryGigabytesPerSecond: number,
  teraflops: number,
  link: keyof typeof links,
  source: string,
): Gpu {
  return {
    ...{ name, title, source, ...links[link] },
    memoryBytes: memoryMib * mib,
    memoryBytesPerSecond: memoryGigabytesPerSecond * giga,
    flopsPerSecond: teraflops * tera,
  }
}

/** Data sheets print rates with sparsity where they can; half of those is here. */
export const gpus: readonly Gpu[] = [
  gpu('b200', 'NVIDIA B200 SXM', 183_359, 8000, 2250, 'pcie5', 'NVIDIA DGX B200 data sheet, 2024'),
  gpu('gb200', 'NVIDIA GB200', 189_471, 8000, 2500, 'sharedChip', 'NVIDIA GB200 NVL72 data sheet, 2024'),
  gpu('h200', 'NVIDIA H200 SXM', 143_771, 4800, 989, 'pcie5', 'NVIDIA H200 data sheet, 2024'),
  gpu('h100', 'NVIDIA H100 SXM 80 GB', 81_559, 3350, 989, 'pcie5', 'NVIDIA H100 data sheet, 2023'),
  gpu('h100-pcie', 'NVIDIA H100 PCIe 80 GB', 81_559, 2000, 756, 'pcie5', 'NVIDIA H100 data sheet, 2022'),
  gpu('h100-nvl', 'NVIDIA H100 NVL 94 GB', 95_830, 3900, 835, 'pcie5', 'NVIDIA H100 data sheet, 2024'),
  gpu('gh200', 'NVIDIA GH200 96 GB', 97_871, 4000, 989, 'chip', 'NVIDIA GH200 data sheet, 2023'),
  gpu('a100', 'NVIDIA A100 SXM 80 GB', 81_920, 2039, 312, 'pcie4', 'NVIDIA A100 data sheet, 2021'),
  gpu('a100-40', 'NVIDIA A100 SXM 40 GB', 40_960, 1555, 312, 'pcie4', 'NVIDIA A100 data sheet, 2021'),
  gpu('a100-pcie', 'NVIDIA A100 PCIe 80 GB', 81_920, 1935, 312, 'pcie4', 'NVIDIA A100 data sheet, 2021'),
  gpu('l40s', 'NVIDIA L40S', 46_068, 864, 362, 'pcie4', 'NVIDIA L40S data sheet, 2023'),
  gpu('l4', 'NVIDIA L4', 23_034, 300, 121, 'pcie4', 'NVIDIA L4 data sheet, 2023'),
  gpu('a10', 'NVIDIA A10', 23_028, 600, 125, 'pcie4', 'NVIDIA A10 data sheet, 2021'),
  gpu('a6000', 'NVIDIA RTX A6000', 49_140, 768, 155, 'pcie4', 'NVIDIA RTX A6000 data sheet, 2021'),
  gpu('t4', 'NVIDIA T4', 15_360, 300, 65, 'pcie3', 'NVIDIA T4 data sheet, 2019'),
  gpu('rtx-4090', 'NVIDIA GeForce RTX 4090', 24_564, 1008, 165, 'pcie4', 'NVIDIA Ada GPU architecture paper, 2022'),
  gpu(
    'rtx-5090',
    'NVIDIA GeForce RTX 5090',
    32_607,
    1792,
    210,
    'pcie5',
    'NVIDIA RTX Blackwell architecture paper, 2025',
  ),
  gpu('mi300x', 'AMD Instinct MI300X', 196_592, 5300, 1307, 'pcie5', 'AMD Instinct MI300X data sheet, 2023'),
]

/** The GPU of that name, whichever way it is written; undefined where none has it. */
export function findGpu(name: string): Gpu | undefined {
  const plain = (text: string) => text.toLowerCase().replace(/[^a-z0-9]/g, '')
  return gpus.find((candidate) => plain(candidate.name) === plain(name) || plain(candidate.title) === plain(name))
}
