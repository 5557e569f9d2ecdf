/* discard.h - the discard handler: every job is done at once. For measuring, and for tasks whose
 * jobs are to be thrown away. */
#ifndef OB_CORE_DISCARD_H
#define OB_CORE_DISCARD_H

#include "core/handler.h"

int discard_executor_new(uv_loop_t *loop, struct executor **ret_executor) OB_MUST_CHECK;

#endif
