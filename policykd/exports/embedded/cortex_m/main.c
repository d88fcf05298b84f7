/* Runs the self-test of an exported policy and leaves with its result: 0, or 1 + the first wrong vector (at most 254).
 * It speaks to a debugger or to QEMU by semihosting. This file is yours, without conditions.
 */

#include "policy.h"

void semihosting_exit(int code);
int main(void);

static long semihosting(long operation, const void *argument)
{
    register long r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void semihosting_exit(int code)
{
    const long why[2] = {0x20026, code}; /* ADP_Stopped_ApplicationExit */
    (void)semihosting(0x20, why);        /* SYS_EXIT_EXTENDED */
    for (;;) {
    }
}

int main(void)
{
    const int result = policy_selftest();
    (void)semihosting(0x04, result ? "policy_selftest: wrong\n" : "policy_selftest: ok\n"); /* SYS_WRITE0 */
    return result > 254 ? 254 : result;
}
