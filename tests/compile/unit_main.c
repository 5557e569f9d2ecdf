/* The other unit: both are C, or both C++, or one of each. */
#include <outbox/outbox.h>

#include "all_functions.h"

#if defined(__cplusplus) && defined(UNIT_A_IS_C)
extern "C" {
#endif
int unit_a(void);
#if defined(__cplusplus) && defined(UNIT_A_IS_C)
}
#endif

int main(void)
{
    return use_all_functions() + unit_a();
}
