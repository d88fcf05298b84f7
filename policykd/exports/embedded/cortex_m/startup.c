/* The smallest start of a Cortex-M4F: vector table, floating-point unit on, memory filled, then main().
 * Takes the place of your board's own; with link.ld it fits QEMU's mps2-an386. This file is yours, without conditions.
 */

#include <stdint.h>

extern uint32_t link_data_from, link_data, link_data_end, link_bss, link_bss_end, link_stack;
int main(void);
void semihosting_exit(int code);
void reset(void);

static void fault(void)
{
    semihosting_exit(255);
}

static void __attribute__((noinline, noreturn)) start(void)
{
    const uint32_t *from = &link_data_from;
    uint32_t *to;
    for (to = &link_data; to < &link_data_end; ++to, ++from) {
        *to = *from;
    }
    for (to = &link_bss; to < &link_bss_end; ++to) {
        *to = 0;
    }
    semihosting_exit(main());
    for (;;) {
    }
}

void reset(void)
{
    volatile uint32_t *const access = (volatile uint32_t *)0xE000ED88u; /* CPACR */
    *access |= 0xFu << 20;                                              /* the floating-point unit, for everyone */
    __asm volatile("dsb\n\tisb" ::: "memory");
    start();
}

typedef void (*handler)(void);

/* the stack's top, then reset, NMI, hard fault, memory fault, bus fault, usage fault */
__attribute__((section(".vectors"), used)) static const struct {
    const void *stack;
    handler handlers[6];
} vectors = {&link_stack, {reset, fault, fault, fault, fault, fault}};
