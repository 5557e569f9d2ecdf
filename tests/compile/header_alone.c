/* outbox.h stands alone, included first, and may be included twice. Also built as C++. */
#include <outbox/outbox.h>

#include "all_functions.h"

int main(void)
{
    return use_all_functions();
}
