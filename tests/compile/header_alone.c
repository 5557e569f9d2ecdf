/* outbox.h stands alone as the first thing included, and may be included twice. Also built as C++.
 */
#include <outbox/outbox.h>

#include "all_functions.h"

int main(void)
{
    return use_all_functions();
}
