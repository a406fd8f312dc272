/* Loaded before a process: answers the instruction `cpuid` as a CPU without VNNI would, so that a library picks its other kernels.
   HIDE=avx512 hides VNNI and AMX; HIDE=avx2 hides AVX-512 too. Linux on x86-64 whose CPU can fault on cpuid. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_SET_CPUID = 0x1012 };
static int hide_avx512;

static void clear(unsigned *word, const int *bits, int count) {
    for (int i = 0; i < count; i++) *word &= ~(1u << bits[i]);
}

static void answer(int number, siginfo_t *info, void *context) {
    static const int amx[] = {22, 24, 25}, vnni[] = {11}, avx_vnni[] = {4, 5, 23}, int8[] = {4, 5, 10};
    static const int f_ebx[] = {16, 17, 21, 26, 27, 28, 30, 31}, f_ecx[] = {1, 6, 12, 14}, f_edx[] = {2, 3, 8, 23};
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *at = (const unsigned char *)regs[REG_RIP];
    (void)info;
    if (at[0] != 0x0f || at[1] != 0xa2) {
        signal(number, SIG_DFL);
        return;
    }
    unsigned leaf = regs[REG_RAX], sub = regs[REG_RCX], a, b, c, d;
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1UL);
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(sub));
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0UL);
    if (leaf == 7 && sub == 0) {
        clear(&c, vnni, 1);
        clear(&d, amx, 3);
        if (hide_avx512) {
            clear(&b, f_ebx, 8);
            clear(&c, f_ecx, 4);
            clear(&d, f_edx, 4);
        }
    }
    if (leaf == 7 && sub == 1) {
        clear(&a, avx_vnni, 3);
        clear(&d, int8, 3);
    }
    regs[REG_RAX] = a, regs[REG_RBX] = b, regs[REG_RCX] = c, regs[REG_RDX] = d;
    regs[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
    const char *hide = getenv("HIDE");
    if (!hide) return;
    hide_avx512 = !strcmp(hide, "avx2");
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, NULL);
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0UL)) _exit(77);
}
